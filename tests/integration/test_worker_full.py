"""A worker that is out of descriptors or memory, also in the middle of taking over: what is
new is refused with a reason, what is old goes on, byte for byte."""

import contextlib
import os
import resource

import pytest
from harness import BUILD, SLOW, SocksError, alone, curl_sha256, recv_exact, socks_connect
from servers import TcpServer, tcp_echo, wait_until
from test_worker_crash import Run, crash, crashpoint, taken_over

pytestmark = pytest.mark.skipif(alone(), reason="the thread sanitizer wants no keeper")

ADDRESS_SANITIZER = "address" in BUILD.name


def hold(pair, server, most):
    """Streams that answer, up to `most` or until one is refused."""
    socks = []
    with contextlib.suppress(OSError, EOFError):
        for _ in range(most):
            s = socks_connect(pair.socks, "127.0.0.1", server.port)
            s.settimeout(20 * SLOW)
            socks.append(s)
    return socks


def all_answer(socks, word):
    for s in socks:
        s.sendall(word)
    for s in socks:
        assert recv_exact(s, len(word)) == word


def close_all(socks):
    for s in socks:
        s.close()


def open_descriptors(pid):
    return max(int(x) for x in os.listdir(f"/proc/{pid}/fd"))


def test_with_all_descriptors_taken_a_kill_loses_none(lab, servers):
    pair = lab.pair(worker_nofile=300)
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 400)
    assert 100 < len(socks) < 300
    assert pair.worker.metric("sallyport_worker_no_descriptors_total") > 0
    assert pair.worker.metric('sallyport_worker_streams_ended_total{reason="no-descriptors"}') > 0
    for _ in range(3):
        found = crash(pair.worker)
        assert found["streams"] >= len(socks) and found["lost"] == 0
        all_answer(socks, b"still here")
    close_all(socks)
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 0, 10 * SLOW, "room")
    socks = hold(pair, server, 3)
    all_answer(socks, b"new")
    close_all(socks)


def test_an_exit_with_hardly_a_descriptor_to_begin_with_takes_over_all(lab, servers):
    pair = lab.pair()
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 40)
    worker = pair.worker
    tight = open_descriptors(worker.exit_pid()) + 1
    for pid in (worker.pid, worker.exit_pid()):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (tight, tight))
    more = hold(pair, server, 10)
    assert len(more) < 3
    all_answer(socks, b"old ones")
    found = crash(worker)
    assert found["streams"] >= 40 and found["lost"] == 0
    all_answer(socks + more, b"again")
    close_all(socks + more)


def vm_bytes(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


@pytest.mark.skipif(ADDRESS_SANITIZER, reason="the sanitizer's own memory ends first")
def test_without_memory_new_streams_are_refused_and_the_old_go_on(lab, servers):
    limits = {"opens_per_second": 100000, "streams_per_session": 8000}
    pair = lab.pair(worker={"limits": limits}, passport={"max_streams": 8000})
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 20)
    all_answer(socks, b"before")
    pid = pair.worker.exit_pid()
    size = vm_bytes(pid) + (128 << 10)
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    more = hold(pair, server, 3000)
    assert len(more) < 3000, "memory was enough"
    refused = 'sallyport_worker_streams_ended_total{reason="no-memory"}'
    resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    assert pair.worker.exit_pid() == pid, "the exit has crashed"
    all_answer(socks, b"after")
    all_answer(more, b"those too")
    assert pair.worker.metric(refused) > 0
    close_all(more)
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 20, 10 * SLOW, "room")
    more = hold(pair, server, 5)
    all_answer(more, b"new")
    close_all(socks + more)


@pytest.mark.parametrize("where", ["send", "recv"])
def test_a_kernel_short_of_memory_slows_streams_and_breaks_none(lab, origin, servers, where):
    pair = lab.pair()
    url = f"http://127.0.0.1:{origin.port}/bytes/20000000"
    want = curl_sha256(pair.socks, url)
    tool = crashpoint(pair.worker, "--at", where, "--how", 105, "--times", 100, "--seconds",
                      60 * SLOW)
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 5)
    for i in range(40):
        all_answer(socks, b"word %d" % i)
    assert Run(curl_sha256, pair.socks, url).wait(60) == want
    tool.kill()
    tool.wait()
    assert len(tool.stdout.readlines()) > 40
    assert not taken_over(pair.worker)
    close_all(socks)


def test_no_socket_for_new_streams_is_a_reason_and_the_old_go_on(lab, servers):
    pair = lab.pair()
    server = TcpServer(servers, tcp_echo)
    socks = hold(pair, server, 5)
    tool = crashpoint(pair.worker, "--at", "socket", "--how", 105, "--times", 50, "--seconds",
                      60 * SLOW)
    with pytest.raises((SocksError, EOFError, ConnectionError)):
        socks_connect(pair.socks, "127.0.0.1", server.port)
    all_answer(socks, b"old")
    tool.kill()
    tool.wait()
    assert pair.worker.metric('sallyport_worker_streams_ended_total{reason="no-memory"}') > 0
    more = hold(pair, server, 2)
    all_answer(more, b"new")
    close_all(socks + more)
