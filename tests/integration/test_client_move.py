"""What becomes of a session, its streams and its flows when their exit dies. No control
plane here: no worker has a record of another's session, so it is made anew under its id."""

import os
import signal
import time

import pytest
from harness import SLOW, SocksUdp, curl, recv_exact, socks_connect
from servers import Path, TcpServer, UdpServer, tcp_echo, wait_until

PARK = 2


class Place:
    def __init__(self, lab, servers, origin, names=("first", "second"), **limits):
        self.lab, self.origin = lab, origin
        self.workers = [lab.worker(n) for n in names]
        self.first, self.second = self.workers[:2]
        self.paths = {w.name: Path(servers, ("127.0.0.1", w.port)) for w in self.workers}
        limits.setdefault("park_timeout", f"{PARK}s")
        self.client = lab.client("client", self.workers, paths=self.paths, limits=limits)
        self.socks = self.client.socks
        wait_until(self.warm, 5 * SLOW, "two exits to be warm")

    def warm(self):
        return all(x["state"] == "healthy" for x in self.client.status()["exits"][:2])

    def get(self):
        start = time.monotonic()
        status, out = curl(self.socks, f"http://127.0.0.1:{self.origin.port}/204")
        assert status == 0, out
        return time.monotonic() - start

    def moved(self, key="fresh"):
        return self.client.status()["sessions_moved"][key]

    def wait_moved(self, n=1):
        wait_until(lambda: self.moved() == n, (PARK + 6) * SLOW, "the session to move")


@pytest.fixture
def place(lab, servers, origin):
    return Place(lab, servers, origin)


def write_exits(place, *workers):
    """The client's config has these from now on."""
    file = place.lab.signer.json_file("client-config", {
        "format": 1, "revision": {"epoch": 1, "sequence": 2},
        "exits": [w.exit_entry() for w in workers]})
    (place.client.dir / "exits.signed").write_bytes(file)
    os.kill(place.client.pid, signal.SIGHUP)


def test_a_session_goes_on_at_the_next_exit_under_its_id(place):
    place.get()
    session = place.client.exit("first")["session"]
    standby = place.client.exit("second")["session"]
    assert session and standby and session != standby
    place.first.kill()
    assert place.get() < 1.0 * SLOW
    place.wait_moved()
    second = place.client.exit("second")
    assert second["session"] == session and second["came"] == "fresh"
    assert place.client.wait_log(rf"session made anew.*session={session}.*exit=second.*from=first")
    assert place.get() < 0.5 * SLOW
    assert place.client.exit("second")["session"] == session
    assert place.client.exit("first")["session"] != session


def test_a_stream_of_a_dead_exit_is_parked_and_then_reset_and_none_hangs(place, servers):
    echo = TcpServer(servers, tcp_echo)
    place.get()
    session = place.client.exit("first")["session"]
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        died = time.monotonic()
        place.first.kill()
        assert place.get() < 1.0 * SLOW
        with socks_connect(place.socks, "127.0.0.1", echo.port) as t:
            t.sendall(b"new")
            assert recv_exact(t, 3) == b"new"
            s.settimeout((PARK + 5) * SLOW)
            with pytest.raises(ConnectionResetError):
                while s.recv(100):
                    pass
            assert time.monotonic() - died > PARK * 0.9
            place.wait_moved()
            # What was opened meanwhile goes on beside the session that came.
            assert place.client.exit("second")["session"] == session
            t.sendall(b"old")
            assert recv_exact(t, 3) == b"old"
            assert place.client.status()["sessions_moved"]["streams_lost"] == 1
        place.get()


def test_a_stream_waits_for_an_exit_that_comes_back_in_time(place, servers):
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        session = place.client.exit("first")["session"]
        place.paths["first"].block()
        place.paths["first"].cut()
        place.get()
        assert place.client.in_use() == "second"
        # Asked for, and refused while a stream waits.
        wait_until(lambda: place.moved("asked") >= 1, 5 * SLOW, "it to be asked for")
        s.sendall(b"two")
        place.paths["first"].unblock()
        s.settimeout(15 * SLOW)
        assert recv_exact(s, 3) == b"two"
        assert place.client.exit("first")["session"] == session
        assert place.moved() == 0 and place.moved("streams_lost") == 0


def test_a_frozen_exit_loses_the_session_and_takes_nothing_back(place, servers):
    echo = TcpServer(servers, tcp_echo)
    place.get()
    session = place.client.exit("first")["session"]
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        place.first.signal(signal.SIGSTOP)
        try:
            assert place.get() < 1.5 * SLOW
            place.wait_moved()
        finally:
            place.first.signal(signal.SIGCONT)
        assert place.client.exit("second")["session"] == session
        with pytest.raises(ConnectionResetError):
            while s.recv(100):
                pass
    place.get()


def test_datagrams_go_on_from_the_same_association(place, servers):
    echo = UdpServer(servers)
    udp = SocksUdp(place.socks, timeout=0.3)
    assert udp.ask("127.0.0.1", echo.port, b"one") == b"one"
    place.first.kill()
    start = time.monotonic()

    def answered():
        try:
            return udp.ask("127.0.0.1", echo.port, b"two") == b"two"
        except TimeoutError:
            return False

    wait_until(answered, 5 * SLOW, "an answer by way of the second exit")
    assert time.monotonic() - start < 2.5 * SLOW
    place.wait_moved()
    for _ in range(5):
        assert udp.ask("127.0.0.1", echo.port, b"three") == b"three"
    udp.close()


def test_a_session_moves_on_as_often_as_its_home_dies(lab, servers, origin):
    place = Place(lab, servers, origin, names=("first", "second", "third"))
    place.get()
    session = place.client.exit("first")["session"]
    place.first.kill()
    place.get()
    place.wait_moved(1)
    wait_until(lambda: place.client.exit("third")["state"] == "healthy", 5 * SLOW, "the third")
    place.second.kill()
    place.get()
    place.wait_moved(2)
    assert place.client.exit("third")["session"] == session
    place.get()


def test_an_exit_that_leaves_the_config_keeps_its_streams_while_it_lives(place, servers):
    echo = TcpServer(servers, tcp_echo)
    place.get()
    session = place.client.exit("first")["session"]
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        write_exits(place, place.second)
        wait_until(lambda: len(place.client.status()["exits"]) == 1, 5 * SLOW, "the reload")
        assert place.get() < 0.5 * SLOW
        s.sendall(b"two")
        assert recv_exact(s, 3) == b"two"
        assert place.moved() == 0
        # Left by the config and dead, which nobody attests here: it is waited for.
        died = time.monotonic()
        place.first.kill()
        s.settimeout((PARK + 5) * SLOW)
        with pytest.raises(ConnectionResetError):
            while s.recv(100):
                pass
        assert time.monotonic() - died > PARK * 0.9
        place.wait_moved()
        assert place.client.exit("second")["session"] == session
        assert place.moved("lost_by")["timeout"] == 1
    place.get()


def test_an_exit_that_left_the_config_unreachable_is_found_again(place, servers):
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(place.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        place.paths["first"].block()
        place.paths["first"].cut()
        place.get()
        write_exits(place, place.second)
        wait_until(lambda: len(place.client.status()["exits"]) == 1, 5 * SLOW, "the reload")
        s.sendall(b"two")
        wait_until(lambda: place.moved("streams_parked") == 1, 5 * SLOW, "it is parked")
        place.paths["first"].unblock()
        s.settimeout(15 * SLOW)
        assert recv_exact(s, 3) == b"two"
        assert place.moved("streams_lost") == 0 and place.moved("streams_resumed") == 1
