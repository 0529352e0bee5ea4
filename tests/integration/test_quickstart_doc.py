"""docs/quickstart.md and quickstart-fleet.md, tried as they stand there: the shell blocks of
each are run in order by one bash, with only the ports replaced by free ones. And the examples, as far as it does not use
them."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SP_BUILD", ROOT / "build" / "release")).resolve()
SLOW = 4 if "address" in BUILD.name or "thread" in BUILD.name else 1
DOC = ROOT / "docs" / "quickstart.md"
EXAMPLES = ROOT / "deploy" / "examples"


def free_ports(n):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def script(doc, examples, ports):
    """The blocks, each announced on standard output by its number."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / doc).read_text(), re.M | re.S)
    text = "set -e\n" + "".join(f"echo '== {i}'\n{b}" for i, b in enumerate(blocks))
    text = text.replace("$PWD/build/release/bin", str(BUILD / "bin"))
    yaml = "".join((EXAMPLES / f"{name}.yaml").read_text() for name in examples)
    seds = ""
    for port, free in zip(ports, free_ports(len(ports))):
        assert str(port) in text + yaml
        text = re.sub(rf"\b{port}\b", str(free), text)
        seds += f"-e 's/:{port}/:{free}/' "  # of the configs made from the examples, too
    return text.replace("sed -e", f"sed {seds}-e")


def group_ends(group, limit_s):
    """A worker's agent reports for up to 2 s after it."""
    end = time.monotonic() + limit_s
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)


def run(home, text, limit_s):
    """(output, errors) of bash, which must end well and end all that it began."""
    paths = home / "out", home / "err"
    with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
        p = subprocess.Popen(["bash", "-c", text], cwd=ROOT, stdin=subprocess.DEVNULL,
                             stdout=out, stderr=err, start_new_session=True,
                             env=dict(os.environ, HOME=str(home)))
    try:
        status = p.wait(limit_s * SLOW)
    except subprocess.TimeoutExpired:
        status = "it hangs"
    left = not group_ends(p.pid, 5 * SLOW if status == 0 else 0)
    if left:  # a whole run ends all that it began; of another, the rest is ended here
        os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    out, err = (path.read_text() for path in paths)
    assert status == 0 and not left, f"{status}\n{out}\n{err}"
    return out, err


def assert_no_secret_is_open(folder):
    for path in [*folder.rglob("*.key"), *folder.rglob("privkey.pem"),
                 *folder.rglob("token")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_every_step_of_the_quickstart_works(tmp_path):
    ports = 1080, 8118, 8080, 8443, 9321
    out, err = run(tmp_path, script("quickstart.md", ("client", "worker"), ports), 60)
    assert out.count("hello from behind the exit\n") == 2  # the tunnel, and the cover site
    assert re.search(r"^\* try +healthy", out, re.M), out
    assert re.search(r"worker\.yaml: good; signed config epoch 1, sequence 2", out), out
    reloads = re.findall(r"^.*reload.*$", err, re.M)
    assert reloads and not [line for line in reloads if "level=error" in line], err
    assert_no_secret_is_open(tmp_path / "sallyport-try")


def test_every_step_of_the_fleet_by_hand_works():
    names = "controller", "fleet", "worker-fleet", "healthcheck", "client-fleet"
    ports = (7201, 7202, 7203, 9331, 8443, 8441, 8442, 8080, 9321, 9322, 9323, 1080)
    text = script("quickstart-fleet.md", names, ports)
    with tempfile.TemporaryDirectory(prefix="sp-") as home:  # for short names of sockets
        out, _ = run(Path(home), text, 180)
        assert out.count("hello from behind the exit\n") >= 6, out
        assert out.count("refused: ") == 2, out  # a lease too many, Redis away
        assert re.search(r"node-down +fra1/0 .*rung connect", out), out
        assert re.findall(r"^revision +epoch (\d)", out, re.M) == ["0", "2", "3"], out
        assert "revoked: live sessions end" in out
        assert_no_secret_is_open(Path(home) / "sallyport-fleet")


@pytest.mark.parametrize("name,kind", [("worker.json", "worker-config"),
                                       ("exits.json", "client-config")])
def test_the_json_examples_hold(name, kind):
    r = subprocess.run([BUILD / "bin" / "sallyportctl", "print", EXAMPLES / name, "--json"],
                       capture_output=True, text=True, check=True)
    assert json.loads(r.stdout)["type"] == kind


@pytest.mark.parametrize("name,program", [("worker.yaml", "sallyport-worker"),
                                          ("worker-fleet.yaml", "sallyport-worker"),
                                          ("client.yaml", "sallyport"),
                                          ("client-fleet.yaml", "sallyport"),
                                          ("controller.yaml", "sallyport-controller"),
                                          ("healthcheck.yaml", "sallyport-healthcheck")])
def test_the_yaml_examples_hold(name, program):
    subprocess.run([BUILD / "bin" / program, "-c", EXAMPLES / name, "--dump-config"],
                   capture_output=True, check=True)


def test_the_examples_of_the_manual_hold(tmp_path):
    page = (ROOT / "docs" / "man" / "sallyport-fleet.5").read_text()
    found = re.findall(r"^\.Bd [^\n]*\n(\{.*?)^\.Ed", page, re.M | re.S)
    assert len(found) == 2
    for i, text in enumerate(found):
        path = tmp_path / f"{i}.json"
        path.write_text(text)
        r = subprocess.run([BUILD / "bin" / "sallyportctl", "print", path],
                           capture_output=True, text=True, check=False)
        assert r.returncode == 0, r.stderr


def test_the_readme_of_the_examples_names_each_file():
    text = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in text
