"""DNS by programs of others: dnsmasq as name server, dig and curl as clients."""

import shutil
import socket
import subprocess

import pytest
from harness import ROOT, SLOW, Process, curl, free_port
from servers import Path, wait_until


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def dnsmasq(lab):
    """A name server for *.stock.example on the port that is returned."""
    port = free_port()
    program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")
    Process(lab, "dnsmasq", [
        program, "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces",
        "--host-record=both.stock.example,127.0.0.1,::1",
        "--host-record=six.stock.example,::1",
        "--address=/any.stock.example/192.0.2.7",
    ]).spawn()
    wait_until(lambda: listens(port), 10 * SLOW, "dnsmasq")
    return port


def test_the_exit_resolves_names_by_a_stock_name_server(lab, dnsmasq, origin):
    pair = lab.pair(worker={"dns": {"servers": [f"127.0.0.1:{dnsmasq}"]}})
    assert curl(pair.socks, f"http://both.stock.example:{origin.port}/bytes/1000")[0] == 0
    status, out = curl(pair.socks, f"http://none.stock.example:{origin.port}/")
    assert status == 97 and b"(4)" in out  # host unreachable: there is no such name


def test_dig_is_answered_through_the_tunnel_while_its_carriers_are_cut(lab, servers, dnsmasq):
    worker = lab.worker()
    path = Path(servers, ("127.0.0.1", worker.port))
    client = lab.client("client", [worker], paths={"worker": path})
    port = free_port(socket.SOCK_DGRAM)
    bridge = Process(lab, "bridge", [
        "/usr/bin/python3", ROOT / "tests/demo/dnsbridge.py", port, client.socks, dnsmasq])
    bridge.spawn().wait_log("ready")
    for i in range(20):
        if i % 5 == 4:
            assert path.cut() >= 1
        r = subprocess.run(
            ["dig", "@127.0.0.1", "-p", str(port), "+short", "+time=2", f"n{i}.any.stock.example"],
            capture_output=True, text=True, timeout=30 * SLOW)
        # A datagram on its way at a cut may be lost: then dig says so and asks again.
        assert r.returncode == 0 and r.stdout.splitlines()[-1] == "192.0.2.7", (i, r.stdout)
    assert client.exit("worker")["resumes"] >= 3
