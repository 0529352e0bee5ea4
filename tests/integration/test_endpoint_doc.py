"""docs/endpoint.md, tried as it stands there: a client in shell, beside the real ones."""
import os
import re
import subprocess
import threading
import time

from fleetlab import FleetLab
from harness import BUILD, ROOT, SLOW
from signed import write_secret


def test_the_client_in_shell_gets_waits_for_and_verifies_its_config(lab, tmp_path):
    fleet = FleetLab(lab).start()
    write_secret(tmp_path / "token", fleet.token("alice"))
    (tmp_path / "signing.pub").write_text(fleet.controller.signing_key + "\n")
    fleet.ctl("keys", "device", "-o", tmp_path / "device.key")
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/endpoint.md").read_text(),
                        re.M | re.S)
    assert len(blocks) == 2

    def shell(text):
        return subprocess.run(
            ["bash", "-ec", text], cwd=tmp_path, capture_output=True, text=True, check=True,
            timeout=60 * SLOW,
            env={**os.environ, "CURL_OPTIONS": "", "ENDPOINT": fleet.fleet["endpoints"][0],
                 "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"}).stdout

    out = shell(blocks[0])
    assert "with the same ETag: 304" in out
    waited = re.search(r"after ([\d.]+) s: 304", out)
    assert waited and 1.9 <= float(waited[1]) <= 6 * SLOW, out
    out = shell(blocks[1])
    assert "Signature Verified Successfully" in out and "signature  verified" in out

    # The same with a change meanwhile: the wait ends, and with another answer.
    threading.Timer(0.3, lambda: fleet.run("cordon", "a")).start()
    begin = time.monotonic()
    out = shell(blocks[0].replace("wait=2", "wait=50"))
    assert "s: 200" in out and time.monotonic() - begin < 20 * SLOW, out
    assert '"name":"a"' in (tmp_path / "config").read_text()
    assert '"name":"a"' not in (tmp_path / "next").read_text()


def test_a_stranger_gets_one_answer_whatever_was_wrong(lab, tmp_path):
    fleet = FleetLab(lab, workers=("a",)).start()
    url = fleet.fleet["endpoints"][0]
    write_secret(tmp_path / "token", fleet.token("alice"))

    def ask(*options):
        r = subprocess.run(["curl", "-sS", "-i", *options], capture_output=True, text=True,
                           check=True, timeout=20 * SLOW)
        return re.sub(r"(?mi)^date:.*\n", "", r.stdout)

    good = f"Authorization: Bearer {(tmp_path / 'token').read_text().strip()}"
    answers = {ask(url), ask("-H", "Authorization: Bearer spt_wrong", url),
               ask("-H", good, url + "/more"), ask("-H", good, "-X", "POST", url)}
    assert len(answers) == 1 and " 404 " in answers.pop()
    assert " 200 " in ask("-H", good, url)
