"""The worker's exit is killed, again and again, and hangs: streams and flows go on, byte for byte."""

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import threading

import pytest
from harness import BUILD, SLOW, SocksUdp, alone, curl_sha256, recv_exact, socks_connect
from servers import TcpServer, wait_until

pytestmark = pytest.mark.skipif(alone(), reason="the thread sanitizer wants no keeper")


def taken_over(worker):
    """What each new exit said of what it took over, oldest first."""
    rows = re.findall(r'msg="took over" (.*)', worker.log)
    return [{k: int(v) for k, v in (x.split("=") for x in r.split())} for r in rows]


def crash(worker):
    """The exit is killed and another one has taken over; what that said."""
    before = len(taken_over(worker))
    worker.kill_exit()
    wait_until(lambda: len(taken_over(worker)) > before, 10 * SLOW, "another exit")
    return taken_over(worker)[-1]


class Run:
    """A thread with a result."""

    def __init__(self, call, *args):
        self.result = None
        self.thread = threading.Thread(target=self._run, args=(call, *args), daemon=True)
        self.thread.start()

    def _run(self, call, *args):
        self.result = call(*args)

    def alive(self):
        return self.thread.is_alive()

    def wait(self, timeout=60):
        self.thread.join(timeout * SLOW)
        assert not self.alive(), "no end"
        return self.result


async def digest(reader, writer):
    """Answers the SHA-256 of all that comes, after its end."""
    sha = hashlib.sha256()
    while part := await reader.read(65536):
        sha.update(part)
    writer.write(sha.digest())
    writer.close()


def upload(socks, port, size, seed):
    """(what the server hashed, what was sent)."""
    rng, sha = random.Random(seed), hashlib.sha256()
    with socks_connect(socks, "127.0.0.1", port) as s:
        s.settimeout(60)
        for _ in range(size // 65536):
            part = rng.randbytes(65536)
            sha.update(part)
            s.sendall(part)
        s.shutdown(socket.SHUT_WR)
        return recv_exact(s, 32), sha.digest()


def test_bulk_both_ways_outlives_kills_of_the_exit(lab, origin, servers):
    pair = lab.pair()
    sink = TcpServer(servers, digest)
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    size = 200_000_000 // SLOW
    want = curl_sha256(pair.socks, f"{url}{size}")[1]
    down = Run(curl_sha256, pair.socks, f"{url}{size}")
    up = Run(upload, pair.socks, sink.port, 64 << 20, 7)
    kills = 0
    while (down.alive() or up.alive()) and kills < 30:
        crash(pair.worker)
        kills += 1
    assert down.wait() == (size, want)
    got, sent = up.wait()
    assert got == sent
    assert kills > 3
    assert all(t["lost"] == 0 for t in taken_over(pair.worker))


def test_streams_of_all_kinds_outlive_a_kill(lab, servers):
    """Idle ones, half-closed ones either way, and some that are being dialled."""
    pair = lab.pair()
    sink = TcpServer(servers, digest)

    async def speak_then_listen(reader, writer):
        writer.write(b"hello")
        writer.write_eof()
        sha = hashlib.sha256(await reader.read())
        assert sha
        writer.close()

    talk = TcpServer(servers, speak_then_listen)
    busy = socket.create_server(("127.0.0.1", 0), backlog=0)
    fill = socket.create_connection(busy.getsockname())  # its queue is full: no SYN is answered
    dialling = [Run(socks_connect, pair.socks, "127.0.0.1", busy.getsockname()[1])
                for _ in range(3)]
    busy.settimeout(10 * SLOW)
    idle = [socks_connect(pair.socks, "127.0.0.1", sink.port) for _ in range(50)]
    for i, s in enumerate(idle):
        s.sendall(b"%d" % i)
    half = [socks_connect(pair.socks, "127.0.0.1", talk.port) for _ in range(20)]
    for s in half:
        assert recv_exact(s, 5) == b"hello" and s.recv(1) == b""
    ended = [socks_connect(pair.socks, "127.0.0.1", sink.port) for _ in range(20)]
    for s in ended[:10]:
        s.shutdown(socket.SHUT_WR)
    for _ in range(3):
        t = crash(pair.worker)
        assert t["lost"] == 0
        assert t["streams"] >= 80 and t["redial"] == 3
    for i, s in enumerate(idle):
        s.sendall(b"more")
        s.shutdown(socket.SHUT_WR)
        assert recv_exact(s, 32) == hashlib.sha256(b"%dmore" % i).digest()
    for s in half:
        s.sendall(b"bye")
        s.close()
    for s in ended[:10]:
        assert recv_exact(s, 32) == hashlib.sha256(b"").digest()
    for s in ended[10:]:
        s.shutdown(socket.SHUT_WR)
        assert recv_exact(s, 32) == hashlib.sha256(b"").digest()
    busy.listen(16)
    accepted = [busy.accept()[0] for _ in range(4)]
    for d in dialling:
        d.wait(20).close()
    for s in [fill, busy, *accepted]:
        s.close()
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 0, 10 * SLOW, "the end")


def test_a_datagram_flow_keeps_its_address_over_a_kill(lab):
    pair = lab.pair()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10 * SLOW)
        udp = SocksUdp(pair.socks, timeout=1)
        udp.send("127.0.0.1", server.getsockname()[1], b"one")
        first = server.recvfrom(100)
        assert first[0] == b"one"
        assert crash(pair.worker)["flows"] == 1
        # the destination speaks first, to the address it knows
        def answered():
            server.sendto(b"answer", first[1])
            try:
                return udp.recv() == b"answer"
            except TimeoutError:
                return False
        assert wait_until(answered, 10 * SLOW, "an answer")
        udp.send("127.0.0.1", server.getsockname()[1], b"two")
        assert server.recvfrom(100) == (b"two", first[1])
        udp.close()


def test_an_exit_that_hangs_is_replaced(lab, origin):
    pair = lab.pair()
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    down = Run(curl_sha256, pair.socks, f"{url}200000000")
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 1, 10 * SLOW)
    os.kill(pair.worker.exit_pid(), signal.SIGSTOP)
    wait_until(lambda: taken_over(pair.worker), 5 * SLOW, "another exit")
    for n in range(2, 6):  # a stop from outside is no crash: no drain after five
        os.kill(pair.worker.exit_pid(), signal.SIGSTOP)
        wait_until(lambda n=n: len(taken_over(pair.worker)) == n, 5 * SLOW, "another exit")
    assert down.wait()[0] == 200000000
    assert pair.worker.metric('sallyport_worker_adoptions_total{cause="hang"}') == 5
    assert pair.worker.metric("sallyport_worker_ready") == 1


def test_a_config_that_broke_meanwhile_is_not_looked_at(lab, servers):
    pair = lab.pair()
    sink = TcpServer(servers, digest)
    with socks_connect(pair.socks, "127.0.0.1", sink.port) as s:
        s.settimeout(20 * SLOW)
        s.sendall(b"before")
        pair.worker.config_path.write_text("nonsense: [\n")
        crash(pair.worker)
        s.sendall(b"after")
        s.shutdown(socket.SHUT_WR)
        assert recv_exact(s, 32) == hashlib.sha256(b"beforeafter").digest()


def test_a_file_of_the_config_that_is_away_costs_time_and_no_flow(lab, servers):
    pair = lab.pair()
    sink = TcpServer(servers, digest)
    key = pair.worker.dir / "node.key"
    with socks_connect(pair.socks, "127.0.0.1", sink.port) as s:
        s.settimeout(20 * SLOW)
        s.sendall(b"before")
        key.rename(key.with_suffix(".away"))
        pair.worker.kill_exit()
        pair.worker.wait_log("the exit cannot begin")
        key.with_suffix(".away").rename(key)
        s.sendall(b"after")
        s.shutdown(socket.SHUT_WR)
        assert recv_exact(s, 32) == hashlib.sha256(b"beforeafter").digest()


def test_the_keepers_end_is_the_workers(lab):
    w = lab.worker()
    pid = w.exit_pid()
    w.kill()
    assert not os.path.exists(f"/proc/{pid}/exe")


def crashpoint(worker, *argv):
    """The tool that ends an exit at a chosen instruction, once it traces."""
    argv = [str(a) for a in (BUILD / "tools" / "crashpoint", *argv, worker.pid)]
    tool = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert tool.stdout.readline() == "tracing\n"
    return tool


def test_no_byte_is_lost_between_receiving_and_recording(lab, origin):
    """SIGKILL when the kernel has copied the bytes and the exit has not heard of it."""
    pair = lab.pair()
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    size = 60_000_000
    want = curl_sha256(pair.socks, f"{url}{size}")[1]
    for times, steps in [(50, 0), (20, 200)]:  # with 200: within so many instructions after
        before = len(taken_over(pair.worker))
        tool = crashpoint(pair.worker, "--at", "recv", "--times", times, "--every-ms", 20,
                          "--steps", steps, "--seed", 3, "--seconds", 100 * SLOW)
        while tool.poll() is None:
            assert curl_sha256(pair.socks, f"{url}{size}") == (size, want)
        assert tool.wait() == 0
        assert len(tool.stdout.readlines()) == times
        found = wait_until(lambda n=before + times: (t := taken_over(pair.worker)) and
                           len(t) >= n and t, 10 * SLOW, "the last exit")[before:]
        assert all(t["lost"] == 0 for t in found)
        repaired = sum(t["repaired_bytes"] > 0 for t in found)
        assert repaired == times if steps == 0 else repaired > 0


async def echo(reader, writer):
    while part := await reader.read(65536):
        writer.write(part)
    writer.close()


def test_a_session_that_crashes_the_worker_again_is_quarantined_alone(lab, origin, servers):
    worker = lab.worker()
    worker.may_crash = True
    good, bad = lab.client("good", [worker]), lab.client("bad", [worker])
    server = TcpServer(servers, echo)
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    want = curl_sha256(good.socks, f"{url}100000000")[1]
    idle = socks_connect(good.socks, "127.0.0.1", server.port)
    down = Run(curl_sha256, good.socks, f"{url}100000000")
    tool = crashpoint(worker, "--at", "send", "--match", "POISON", "--how", "fault",
                      "--times", 20, "--seconds", 60 * SLOW)
    with socks_connect(bad.socks, "127.0.0.1", server.port) as s:
        s.settimeout(30 * SLOW)
        s.sendall(b"fine")
        assert recv_exact(s, 4) == b"fine"
        s.sendall(b"POISON")
        with pytest.raises(OSError):
            assert s.recv(1)
            raise AssertionError("an answer")
    tool.kill()
    tool.wait()
    ends = tool.stdout.readlines()
    assert len(ends) == 2, ends  # the second crash was the last one
    assert [t["quarantined"] for t in taken_over(worker)] == [0, 1]
    assert "reason=quarantined" in bad.log
    said = re.search(r"session quarantined.*", worker.log).group()
    assert re.search(r" session=[0-9a-f]{8} ", said) and "user" not in said, said
    # its client has another session at once, and the others have felt nothing
    with socks_connect(bad.socks, "127.0.0.1", server.port) as s:
        s.settimeout(30 * SLOW)
        s.sendall(b"again")
        assert recv_exact(s, 5) == b"again"
    idle.settimeout(10 * SLOW)
    idle.sendall(b"here")
    assert recv_exact(idle, 4) == b"here"
    idle.close()
    assert down.wait() == (100000000, want)
    assert all(t["lost"] == 0 for t in taken_over(worker))
    assert worker.metric("sallyport_worker_ready") == 1
    # what is counted outlives the processes
    assert worker.metric('sallyport_worker_adoptions_total{cause="crash"}') == 2
    assert worker.metric("sallyport_worker_quarantines_total") == 1
    worker.kill_exit()
    wait_until(lambda: len(taken_over(worker)) == 3, 10 * SLOW, "another exit")
    assert worker.metric('sallyport_worker_adoptions_total{cause="crash"}') == 2
    assert worker.metric('sallyport_worker_adoptions_total{cause="kill"}') == 1
    assert worker.metric("sallyport_worker_quarantines_total") == 1
    assert worker.metrics()["sallyport_worker_adoption_seconds_count"] == 3


def test_a_session_that_hangs_the_worker_again_is_quarantined_alone(lab, servers):
    worker = lab.worker()
    good = lab.client("good", [worker])
    bad = lab.client("bad", [worker])
    server = TcpServer(servers, echo)
    idle = socks_connect(good.socks, "127.0.0.1", server.port)
    tool = crashpoint(worker, "--at", "send", "--match", "POISON", "--how", "hang",
                      "--times", 20, "--seconds", 90 * SLOW)
    with socks_connect(bad.socks, "127.0.0.1", server.port) as s:
        s.settimeout(30 * SLOW)
        s.sendall(b"POISON")
        with pytest.raises(OSError):
            assert s.recv(1)
            raise AssertionError("an answer")
    tool.kill()
    tool.wait()
    assert len(tool.stdout.readlines()) == 2
    assert [t["quarantined"] for t in taken_over(worker)] == [0, 1]
    assert worker.metric('sallyport_worker_adoptions_total{cause="hang"}') == 2
    idle.settimeout(10 * SLOW)
    idle.sendall(b"here")
    assert recv_exact(idle, 4) == b"here"
    idle.close()


def test_many_sessions_that_crash_the_worker_cannot_end_it(lab, servers):
    worker = lab.worker()
    worker.may_crash = True
    good = lab.client("good", [worker])
    bad = [lab.client(f"bad{i}", [worker], passport={"user": f"bad{i}"}) for i in range(8)]
    server = TcpServer(servers, echo)
    idle = socks_connect(good.socks, "127.0.0.1", server.port)
    idle.settimeout(20 * SLOW)
    socks = [socks_connect(c.socks, "127.0.0.1", server.port) for c in bad]
    tool = crashpoint(worker, "--at", "send", "--match", "POISON", "--how", "fault",
                      "--times", 40, "--seconds", 90 * SLOW)
    for s in socks:
        s.settimeout(30 * SLOW)
        s.sendall(b"POISON")
        with pytest.raises(OSError):
            assert s.recv(1)
            raise AssertionError("an answer")
    tool.kill()
    tool.wait()
    assert 8 <= len(tool.stdout.readlines()) <= 16
    assert worker.metric("sallyport_worker_quarantines_total") == 8
    assert worker.metric("sallyport_worker_ready") == 0
    idle.sendall(b"still")
    assert recv_exact(idle, 5) == b"still"
    idle.close()
    assert all(t["lost"] == 0 for t in taken_over(worker))


def test_five_crashes_in_a_minute_drain_the_worker(lab, servers):
    worker = lab.worker()
    worker.may_crash = True
    client = lab.client("client", [worker])
    server = TcpServer(servers, echo)
    s = socks_connect(client.socks, "127.0.0.1", server.port)
    for _ in range(5):
        before = len(taken_over(worker))
        os.kill(wait_until(worker.exit_pid, 10 * SLOW, "an exit"), signal.SIGABRT)
        wait_until(lambda n=before: len(taken_over(worker)) > n, 10 * SLOW, "another exit")
    wait_until(lambda: worker.metric("sallyport_worker_ready") == 0, 10 * SLOW, "the drain")
    assert "drained: it crashes again and again" in worker.log
    assert worker.metric("sallyport_worker_crash_drained") == 1
    s.settimeout(10 * SLOW)
    s.sendall(b"goes on")
    assert recv_exact(s, 7) == b"goes on"
    s.close()
    late = lab.client("late", [worker], wait=False)
    late.wait_log("reason=draining")


def arena_holds(pid, marker):
    """Whether a process's arena has these bytes somewhere."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            if "sallyport-arena" in line:
                begin, end = (int(x, 16) for x in line.split()[0].split("-"))
                for at in range(begin, end, 4 << 20):
                    mem.seek(at)
                    if marker in mem.read(min(4 << 20, end - at)):
                        return True
    return False


def test_bytes_of_streams_that_ended_are_wiped_also_after_a_kill(lab):
    pair = lab.pair(worker={"limits": {"memory": "1M", "streams": 16, "flows": 16}})
    marker = b"a word that nobody else says, " * 200

    def held():
        pid = pair.worker.exit_pid()
        return pid and arena_holds(pid, marker[:30])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10 * SLOW)
        app = socks_connect(pair.socks, "127.0.0.1", listener.getsockname()[1])
        app.settimeout(10 * SLOW)
        server = listener.accept()[0]
        os.kill(pair.client.pid, signal.SIGSTOP)  # what comes for it stays in the arena
        try:
            server.sendall(marker)
            wait_until(held, 10 * SLOW, "the bytes")
            crash(pair.worker)
            assert held()
        finally:
            os.kill(pair.client.pid, signal.SIGCONT)
        assert recv_exact(app, len(marker)) == marker
        server.close()
        assert app.recv(1) == b""
        app.close()
    wait_until(lambda: not held(), 10 * SLOW, "zeros")
