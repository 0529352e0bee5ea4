"""The link emulator as real sockets see it: what was set is what happens."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path as FilePath

import pytest
from harness import BUILD, SLOW
from linklab import Net, needs_net
from servers import wait_until

pytestmark = needs_net
MSS_SHARE = 1448 / 1500  # of an IP packet that a TCP bulk transfer gets


@pytest.fixture
def net():
    with Net({"client": "10.77.0.1", "exit": "10.77.0.2", "other": "10.77.0.3"}) as n:
        yield n


def listener(net, end="exit"):
    with net.inside(end):
        return socket.create_server((net.address[end], 0))


def tcp_pair(net, server, end="client", timeout=10):
    """A connection from `end`: (its socket, the server's)."""
    with net.inside(end):
        c = socket.create_connection(server.getsockname(), timeout * SLOW)
    server.settimeout(timeout * SLOW)
    s, _ = server.accept()
    s.settimeout(timeout * SLOW)
    return c, s


@contextlib.contextmanager
def udp_pair(net):
    with net.inside("exit"):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with net.inside("client"):
        c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s, c:
        s.bind((net.address["exit"], 0))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        c.connect(s.getsockname())
        c.settimeout(5 * SLOW)
        s.settimeout(5 * SLOW)
        yield c, s


def round_trip(c, s):
    begin = time.monotonic()
    c.send(b"there")
    data, addr = s.recvfrom(100)
    s.sendto(data, addr)
    c.recv(100)
    return time.monotonic() - begin


def pour(sock, n):
    """Sends n bytes and the end, in a thread."""

    def run():
        with contextlib.suppress(OSError):
            left, block = n, bytes(65536)
            while left:
                left -= sock.send(block[:left])
            sock.shutdown(socket.SHUT_WR)

    t = threading.Thread(target=run, daemon=True)
    t.start()
    return t


def drain(sock, seconds=60):
    """Bytes until the end, or until nothing has come for a second: (bytes, ended)."""
    n, until = 0, time.monotonic() + seconds * SLOW
    sock.settimeout(1)
    while time.monotonic() < until:
        try:
            data = sock.recv(1 << 18)
        except TimeoutError:
            return n, False
        if not data:
            return n, True
        n += len(data)
    return n, False


def test_the_round_trip_is_what_was_set(net):
    with udp_pair(net) as (c, s):
        for ms in (0, 50, 80):
            net(f"link client exit delay={ms / 2}ms")
            times = [round_trip(c, s) * 1000 for _ in range(20)]
            # The best one: what the machine's other work adds is not the emulator's.
            assert ms <= min(times) <= ms + 1.5 * SLOW, sorted(times)


def test_a_tcp_transfer_gets_the_rate_that_was_set(net):
    net("link client exit delay=5ms")
    net("path exit client rate=20mbit queue=100k")
    server = listener(net)
    c, s = tcp_pair(net, server)
    pour(s, 20_000_000)
    c.settimeout(10 * SLOW)
    got, begin = 0, 0
    while got < 14_000_000:  # from the middle, so that the start does not count
        got += len(c.recv(1 << 18))
        if got > 4_000_000 and not begin:
            begin, first = time.monotonic(), got
    mbit = (got - first) * 8 / (time.monotonic() - begin) / 1e6
    stats = net("stats exit client")
    assert mbit == pytest.approx(20 * MSS_SHARE, rel=0.05), stats.line
    assert 20 * 1024 < stats.queue_max <= 100 * 1024  # a slow reader may not fill it
    assert net("stats client exit").tail == 0


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer is no measure of speed")
def test_200_mbit_pass_at_a_fraction_of_a_core(net):
    net("link client exit delay=2ms rate=220mbit queue=1m")
    server = listener(net)
    c, s = tcp_pair(net, server)
    cpu, begin = net.cpu_s(), time.monotonic()
    pour(s, 75_000_000)
    got, ended = drain(c)
    seconds, cpu = time.monotonic() - begin, net.cpu_s() - cpu
    print(f"{got * 8 / seconds / 1e6:.0f} Mbit/s, {cpu / (got * 8e-9):.2f} s of CPU a Gbit")
    assert ended and got == 75_000_000
    assert cpu / (got * 8e-9) < 2


def test_loss_takes_the_share_that_was_set_in_its_direction_only(net):
    net("path client exit loss=10%")
    with udp_pair(net) as (c, s):
        for _ in range(2000):
            c.send(bytes(100))
        wait_until(lambda: net("stats client exit")["in"] >= 2000, 5 * SLOW, "all sent")
        stats = net("stats client exit")
        s.settimeout(1)
        got = 0
        with contextlib.suppress(TimeoutError):
            while got < stats.out:
                s.recv(200)
                got += 1
        assert got == stats.out and stats.lost + stats.out == stats["in"]
        assert 150 <= stats.lost <= 250
    assert net("stats exit client").lost == 0


def test_tcp_survives_loss_duplicates_and_reordering_at_once(net):
    net("link client exit delay=2ms jitter=1ms loss=1% duplicate=1% reorder=1% late=3ms")
    c, s = tcp_pair(net, listener(net))
    pour(s, 2_000_000)
    assert drain(c) == (2_000_000, True)


def test_a_blackhole_is_silent_and_only_where_it_was_put(net):
    server = listener(net)
    c1, s1 = tcp_pair(net, server)
    c2, s2 = tcp_pair(net, server)
    port = c1.getsockname()[1]
    rule = net(f"block client exit proto=tcp src=:{port}").rule
    c1.sendall(b"lost")
    c2.sendall(b"arrives")
    assert s2.recv(100) == b"arrives"
    s1.settimeout(0.3)
    with pytest.raises(TimeoutError):
        s1.recv(100)
    s1.sendall(b"the other way")
    assert c1.recv(100) == b"the other way"
    net(f"unblock {rule}")
    s1.settimeout(10 * SLOW)  # TCP sends again
    assert s1.recv(100) == b"lost"
    net("cut client *")
    with net.inside("client"), socket.socket() as n:
        n.settimeout(0.5)
        with pytest.raises(TimeoutError):
            n.connect(server.getsockname())
    o, s3 = tcp_pair(net, server, end="other")
    o.sendall(b"from elsewhere")
    assert s3.recv(100) == b"from elsewhere"


def test_a_connection_freezes_after_16_kb_and_the_next_one_begins_anew(net):
    net("freeze exit client bytes=16k")
    server = listener(net)
    for _ in range(2):
        c, s = tcp_pair(net, server)
        pour(s, 200_000)
        n, ended = drain(c)
        assert not ended and 16384 - 1448 < n <= 16384
    assert net("stats").flows_frozen == 2
    assert all(frozen for *_, frozen in net.flows())
    c, s = tcp_pair(net, server)
    pour(c, 1_000_000)  # the other way is not counted
    assert drain(s) == (1_000_000, True)


def test_an_rst_ends_a_busy_connection_at_both_sides(net):
    net("link client exit delay=10ms rate=20mbit queue=64k")
    server = listener(net)
    c, s = tcp_pair(net, server)
    other, other_s = tcp_pair(net, server)
    t = pour(s, 100_000_000)
    for _ in range(50):
        c.recv(65536)
    port = c.getsockname()[1]
    assert net(f"rst client exit src=:{port}").flows == 1
    with pytest.raises(ConnectionResetError):
        while c.recv(65536):
            pass
    t.join(5 * SLOW)
    assert not t.is_alive()
    other.sendall(b"still there")
    assert other_s.recv(100) == b"still there"


def test_a_rebind_gives_a_flow_another_source_port(net):
    net("nat client")
    with udp_pair(net) as (c, s):
        ports = []
        for _ in range(3):
            c.send(b"there")
            data, addr = s.recvfrom(100)
            assert addr[0] == net.address["client"]
            ports.append(addr[1])
            s.sendto(data, addr)
            assert c.recv(100) == b"there"
            if len(ports) == 2:
                assert net("rebind client").mappings == 1
        assert ports[0] == ports[1] != ports[2] and ports[0] != c.getsockname()[1]
        s.sendto(b"to the old one", (addr[0], ports[0]))
        c.settimeout(0.2)
        with pytest.raises(TimeoutError):
            c.recv(100)


def test_a_rebind_ends_a_tcp_connection_as_a_strange_one_at_the_far_end(net):
    net("nat client")
    c, s = tcp_pair(net, listener(net))
    c.sendall(b"before")
    assert s.recv(100) == b"before"
    net("rebind client proto=tcp")
    c.sendall(b"after")
    with pytest.raises(ConnectionResetError):
        c.recv(100)


def test_a_link_that_is_down_carries_nothing_until_it_is_up(net):
    with udp_pair(net) as (c, s):
        net("link client exit down=1")
        c.send(b"lost")
        wait_until(lambda: net("stats client exit").down == 1, 5 * SLOW, "dropped")
        net("link client exit down=0")
        assert round_trip(c, s) < 1 * SLOW


def test_nothing_is_left_when_the_test_is_killed():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from linklab import Net\n"
        "import subprocess\n"
        "net = Net({'a': '10.77.0.1', 'b': '10.77.0.2'})\n"
        "print(net.process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(FilePath(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as p:
        pid = int(p.stdout.readline())
        assert os.path.exists(f"/proc/{pid}/ns/net")
        p.kill()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}/fd/0"), 5 * SLOW, "its end")


def test_a_thread_is_back_in_its_own_namespace_also_after_an_error(net):
    def where():
        return os.readlink("/proc/thread-self/ns/net")

    home = where()
    with pytest.raises(ZeroDivisionError), net.inside("exit"):
        away = where()
        with net.inside("client"):
            assert where() not in (home, away)
        assert where() == away != home
        raise ZeroDivisionError
    assert where() == home


def test_the_emulator_says_how_it_is_used_and_what_is_wrong():
    def run(*args):
        return subprocess.run(
            [BUILD / "tools" / "linkemu", *args], capture_output=True, text=True, timeout=20,
            stdin=subprocess.DEVNULL,
        )

    r = run("--help")
    assert r.returncode == 0
    for word in "link path block cut unblock freeze unfreeze rst nat rebind stats flows".split():
        assert re.search(rf"^  {word} ", r.stdout, re.M), word
    for args in ([], ["--seed"], ["a"], ["a=10.0.0.1"], ["a=10.0.0/24"], ["a=10.0.0.1/33"],
                 ["a=10.0.0.1/24", "a=10.0.0.2/24"], ["a=10.0.0.1/24", "b=10.0.0.1/24"]):
        r = run(*args)
        assert r.returncode == 1 and r.stderr, args


def test_commands_are_also_taken_from_a_unix_socket(tmp_path):
    path = tmp_path / "control"
    with subprocess.Popen(
        [BUILD / "tools" / "linkemu", "--control", path, "a=10.77.0.1/24", "b=10.77.0.2/24"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as p:
        assert p.stdout.readline().startswith("ready a=")
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as s, s.makefile("r") as answers:
            s.settimeout(5 * SLOW)
            s.connect(str(path))
            s.sendall(b"link a b delay=1ms\nlink a c\nqu")
            assert answers.readline().startswith("ok at=")
            assert answers.readline() == "error no end has the name c\n"
            s.sendall(b"it\n")
            assert answers.readline().startswith("ok at=")
        assert p.wait(5 * SLOW) == 0
