"""A worker dies while a client has flows and usage: another one adopts the session under its
id, through the real controller and Redis; with Redis emptied it is made anew under its id.
Usage stays exact: what the client was given is what the fleet counted, over all workers."""

import threading
import time

import pytest
from fleetlab import FleetLab
from harness import SLOW, SocksUdp, curl_sha256
from servers import UdpServer, body_sha256, wait_until

N, QUOTA = 2_000_000, 500 << 20
UDP_BEFORE, UDP_AFTER = 5 * 2 * len(b"before 0"), 2 * len(b"after")
TIER = {"name": "standard", "max_streams": 321, "max_flows": 123, "rate": "4M",
        "quota": QUOTA}


def used(fleet):
    (user,) = fleet.json("get", "users")["users"]
    return user["used_up"] + user["used_down"], user.get("quota_left")


def counted(*workers):
    """Bytes of streams and datagrams that these workers have seen, by their metrics."""
    return sum(v for w in workers for name, v in w.metrics().items()
               if name.startswith(("sallyport_worker_stream_bytes_total{",
                                   "sallyport_worker_datagram_bytes_total{")))


class Load(threading.Thread):
    """Downloads one after the other; counts what came, whole or not."""

    def __init__(self, client, origin, n=N):
        super().__init__(daemon=True)
        self.client, self.n, self.done, self.bad = client, n, 0, []
        self.url = f"http://127.0.0.1:{origin.port}/bytes/{n}"
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.is_set():
            try:
                got = curl_sha256(self.client.socks, self.url)
                assert got == (self.n, body_sha256(self.n))
                self.done += 1
            except AssertionError as e:
                self.bad.append(str(e))

    def stop(self):
        self.stopped.set()
        self.join(40 * SLOW)


@pytest.mark.parametrize("redis", ["whole", "emptied"])
def test_a_session_goes_on_elsewhere_as_it_was_and_its_usage_is_exact(lab, servers, origin,
                                                                      redis):
    fleet = FleetLab(lab, workers=("a", "b"), tiers=[TIER]).start()
    # A stream that was cut off waits for its home for so long, unless the session is adopted.
    client = fleet.client(limits={"park_timeout": "2s"})
    seen = {}

    def answer(data, addr):
        seen[data] = addr
        return data

    udp, flow = UdpServer(servers, answer), SocksUdp(client.socks)
    for i in range(5):
        assert flow.ask("127.0.0.1", udp.port, b"before %d" % i) == b"before %d" % i
    url = f"http://127.0.0.1:{origin.port}/bytes/{N}"
    assert curl_sha256(client.socks, url) == (N, body_sha256(N))
    home = client.in_use()
    other = {"a": "b", "b": "a"}[home]
    session = client.exit(home)["session"]

    def of_session():
        return next((s for s in fleet.json("get", "sessions")["sessions"]
                     if s["id"].startswith(session)), None)

    record = wait_until(lambda: (of_session() or {}).get("flows") and of_session(), 10 * SLOW,
                        "the session's record, with its flow")
    wait_until(lambda: used(fleet)[0] >= N + UDP_BEFORE
               and used(fleet)[0] == counted(fleet[home], fleet[other]),
               10 * SLOW, "the usage until now")
    before, left = used(fleet)
    assert left == QUOTA - before
    overhead = before - N - UDP_BEFORE  # of one request
    assert 0 < overhead < 400

    load = Load(client, origin)
    load.start()
    wait_until(lambda: load.done >= 2, 10 * SLOW, "downloads")
    if redis == "emptied":
        fleet.redis.cli("FLUSHALL")
    fleet[home].kill()
    moved = "adopted" if redis == "whole" else "fresh"
    wait_until(lambda: client.status()["sessions_moved"][moved] == 1, 15 * SLOW,
               f"the session to be {moved}")
    began, done = time.monotonic(), load.done
    wait_until(lambda: load.done >= done + 3, 15 * SLOW, "downloads at the new home")
    assert time.monotonic() - began > 2 * N / (4 << 20) * 0.8  # the tier's rate
    load.stop()
    assert len(load.bad) <= 1  # the one that was under way
    x = client.exit(other)
    assert x["session"] == session and x["came"] == moved
    assert flow.ask("127.0.0.1", udp.port, b"after") == b"after"
    if redis == "whole":
        s = wait_until(lambda: of_session() and of_session()["node"] == f"{other}/0"
                       and of_session(), 10 * SLOW, "its new home")
        same = ("id", "user", "tier", "flows")
        assert [record[k] for k in same] == [s[k] for k in same]
        assert s["epoch"] > record["epoch"]
    assert fleet.controller.metrics()[
        f'sallyport_controller_directory_results_total{{call="adopt",result="{moved}"}}'] >= 1
    # the dead one comes back and tells the rest of what it counted
    fleet[home].start()
    whole = (N + overhead) * (1 + load.done) + UDP_BEFORE + UDP_AFTER
    cut = (N + overhead) * len(load.bad)
    wait_until(lambda: whole <= used(fleet)[0] <= whole + cut, 10 * SLOW,
               f"{whole} bytes and at most {cut} that were cut off")
    if not cut:
        assert used(fleet)[0] == whole
    assert used(fleet)[1] == QUOTA - used(fleet)[0]
    wait_until(lambda: not any(fleet[w].metrics()["sallyport_agent_usage_segments_waiting"]
                               for w in (home, other)), 10 * SLOW, "all is told")
    assert whole <= used(fleet)[0] <= whole + cut


def test_a_session_that_outlived_a_crash_of_its_home_is_told_as_it_is(lab, servers):
    fleet = FleetLab(lab, workers=("a", "b")).start()
    client = fleet.client()
    home = client.in_use()

    def record():
        (s,) = [s for s in fleet.json("get", "sessions")["sessions"]
                if s["id"].startswith(client.exit(home)["session"])]
        return s

    before = record()
    fleet[home].kill_exit()
    udp, flow = UdpServer(servers, lambda data, _: data), SocksUdp(client.socks)
    wait_until(lambda: client.exit(home)["resumes"] >= 1, 10 * SLOW, "the session is back")
    assert flow.ask("127.0.0.1", udp.port, b"anew") == b"anew"
    after = wait_until(lambda: record()["flows"] == 1 and record(), 10 * SLOW, "its record")
    assert before["flows"] == 0 and after["epoch"] > before["epoch"]
    assert after["node"] == before["node"]
