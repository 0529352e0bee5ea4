"""docs/quickstart.md, tried as it stands there: its shell blocks are run in order by one
bash, with only the ports replaced by free ones. And the examples, as far as it does not use
them."""

import json
import os
import re
import signal
import socket
import subprocess
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


def script():
    """The blocks, each announced on standard output by its number."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOC.read_text(), re.M | re.S)
    text = "set -e\n" + "".join(f"echo '== {i}'\n{b}" for i, b in enumerate(blocks))
    text = text.replace("$PWD/build/release/bin", str(BUILD / "bin"))
    yaml = (EXAMPLES / "client.yaml").read_text() + (EXAMPLES / "worker.yaml").read_text()
    ports = ["1080", "8118", "8080", "8443", "9321"]
    for port, free in zip(ports, free_ports(len(ports))):
        assert port in text + yaml
        text = re.sub(rf"\b{port}\b", str(free), text)
        # of the configs made from the examples, too
        text = text.replace("sed -e", f"sed -e 's/:{port}/:{free}/' -e")
    return text


def test_every_step_of_the_quickstart_works(tmp_path):
    paths = tmp_path / "out", tmp_path / "err"
    with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
        p = subprocess.Popen(["bash", "-c", script()], cwd=ROOT, stdin=subprocess.DEVNULL,
                             stdout=out, stderr=err, start_new_session=True,
                             env=dict(os.environ, HOME=str(tmp_path)))
    try:
        status = p.wait(60 * SLOW)
    except subprocess.TimeoutExpired:
        status = "it hangs"
    try:  # a whole run ends all that it began; of another, what is left is ended here
        os.killpg(p.pid, signal.SIGKILL)
        left = True
    except ProcessLookupError:
        left = False
    p.wait()
    out, err = (path.read_text() for path in paths)
    assert status == 0 and not left, f"{status}\n{out}\n{err}"
    assert out.count("hello from behind the exit\n") == 2  # the tunnel, and the cover site
    assert re.search(r"^\* try +healthy", out, re.M), out
    assert re.search(r"worker\.yaml: good; signed config epoch 1, sequence 2", out), out
    reloads = re.findall(r"^.*reload.*$", err, re.M)
    assert reloads and not [line for line in reloads if "level=error" in line], err
    made = tmp_path / "sallyport-try"
    for path in [*made.rglob("*.key"), *made.rglob("privkey.pem")]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("name,kind", [("worker.json", "worker-config"),
                                       ("exits.json", "client-config")])
def test_the_json_examples_hold(name, kind):
    r = subprocess.run([BUILD / "bin" / "sallyportctl", "print", EXAMPLES / name, "--json"],
                       capture_output=True, text=True, check=True)
    assert json.loads(r.stdout)["type"] == kind


@pytest.mark.parametrize("name,program", [("worker.yaml", "sallyport-worker"),
                                          ("client.yaml", "sallyport"),
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
