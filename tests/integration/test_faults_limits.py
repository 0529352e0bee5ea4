"""What a user may do holds for flows that live: revocation, quota, expiry, rate, and the
devices at once over the whole fleet. CHECK_LONG=1: 25 revocations and quotas instead of a
few; what was measured is printed (-s)."""

import os
import signal
import statistics
import time

import pytest
from faults import FaultyFleet, Stream, module_place
from fleetlab import FleetClient
from harness import SLOW, socks_connect
from servers import wait_until

RUNS = 25 if os.environ.get("CHECK_LONG") else 3
USERS = ["alice", "expiring", "disabled", "gone", "shared",
         *(f"r{i}" for i in range(RUNS)), *(f"q{i}" for i in range(RUNS))]
QUOTA = 2 << 20


def entry(name, **more):
    tier = "single" if name == "shared" else "standard"
    return {"name": name, "tier": tier, **({"quota": QUOTA} if name[0] == "q" else {}), **more}


@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    def make(place):
        f = FaultyFleet(place, users=USERS)
        f.apply(tiers=[{"name": "standard"}, {"name": "single", "max_sessions": 1}],
                users=[entry(u) for u in USERS])
        return f

    yield from module_place(request, servers, dns, origin, make)


def say(what, seconds):
    seconds = sorted(seconds)
    print(f"{what}: {len(seconds)} runs, p50 {statistics.median(seconds) * 1000:.0f} ms, "
          f"max {seconds[-1] * 1000:.0f} ms")


def ends(sock, timeout=5):
    """(when it ended, bytes that came, when each came)."""
    sock.settimeout(timeout * SLOW)
    came, n = [], 0
    try:
        while part := sock.recv(65536):
            n += len(part)
            came.append((time.monotonic(), n))
    except ConnectionError:
        pass
    return time.monotonic(), came


def test_a_revocation_ends_live_sessions_within_a_second(fleet, servers):
    took = []
    for i in range(RUNS):
        client = fleet.client(f"r{i}", f"r{i}")
        stream = Stream(client, servers)
        assert stream.holds()
        began = time.monotonic()
        fleet.run("revoke", "--user", f"r{i}")
        took.append(ends(stream.sock)[0] - began)
        client.stop()
    say("revoked, from the operator's command to the end of the flow", took)
    assert max(took) <= 1 * SLOW
    assert fleet.stream.holds()


def test_a_used_up_quota_ends_live_flows_within_a_second(fleet, origin):
    took = []
    for i in range(RUNS):
        client = fleet.client(f"q{i}", f"q{i}")
        sock = socks_connect(client.socks, "127.0.0.1", origin.port)
        sock.sendall(b"GET /slow/50000000/50 HTTP/1.1\r\nHost: x\r\n\r\n")  # 1.3 MB a second
        end, came = ends(sock)
        over = next((at for at, n in came if n >= QUOTA), end)
        took.append(end - over)
        # what buffers hold, and a second of it, and no more
        assert came[-1][1] < QUOTA + 4 * 1_310_720
        wait_until(lambda i=i: next(u for u in fleet.json("get", "users")["users"]
                                    if u["name"] == f"q{i}")["quota_left"] <= 0, 5 * SLOW,
                   "the fleet knows")
        client.stop()
    say("quota used up, until the end of the flow", took)
    assert max(took) <= 1 * SLOW
    assert fleet.stream.holds()


def test_a_user_whose_time_ends_is_out_in_mid_flow(fleet, servers):
    until = int(time.time()) + 4
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    fleet.apply(users=[entry(u, **({"expires": text} if u == "expiring" else {}))
                       for u in USERS])
    client = fleet.client("expiring", "expiring")
    stream = Stream(client, servers)
    assert stream.holds()
    ends(stream.sock, 10)
    assert -0.1 < time.time() - until <= 1.5 * SLOW
    client.stop()


@pytest.mark.parametrize("how", ["expires", "disabled", "gone"])
def test_a_user_who_may_no_more_is_out_within_a_second(fleet, servers, how):
    user = {"expires": "alice2"}.get(how, how)
    users = [*USERS, user] if user not in USERS else USERS
    fleet.apply(users=[entry(u) for u in users])
    client = fleet.client(f"{user}-{how}", user)
    stream = Stream(client, servers)
    assert stream.holds()
    change = {"expires": {"expires": "2020-01-01T00:00:00Z"}, "disabled": {"disabled": True}}
    now = [entry(u, **(change[how] if u == user else {})) for u in users
           if how != "gone" or u != user]
    began = time.monotonic()
    fleet.apply(users=now)
    took = ends(stream.sock)[0] - began
    say(how, [took])
    assert took <= 1 * SLOW
    client.stop()


def test_a_rate_holds_for_flows_that_live(fleet, origin):
    sock = socks_connect(fleet.user.socks, "127.0.0.1", origin.port)
    sock.settimeout(10 * SLOW)
    sock.sendall(b"GET /bytes/4000000000 HTTP/1.1\r\nHost: x\r\n\r\n")

    def speed(seconds):
        n, began = 0, time.monotonic()
        while time.monotonic() < began + seconds:
            n += len(sock.recv(1 << 18))
        return n / (time.monotonic() - began)

    def tiers(**standard):
        fleet.apply(tiers=[{"name": "standard", **standard},
                           {"name": "single", "max_sessions": 1}])

    free = speed(0.5)
    tiers(rate="2M")
    speed(1.5)  # what is on its way
    limited = speed(2)
    tiers()
    speed(0.5)
    again = speed(0.5)
    print(f"without a rate {free / 1e6:.0f} MB/s, with 2 MiB/s {limited / 1e6:.2f} MB/s, "
          f"without again {again / 1e6:.0f} MB/s")
    assert 0.7 * (2 << 20) < limited < 1.15 * (2 << 20)
    assert again > 2 * limited
    sock.close()


def test_devices_at_once_are_counted_over_the_fleet(fleet):
    over = 'sallyport_controller_directory_results_total{call="put",result="over-limit"}'
    before = fleet.controller.metrics()[over]
    fleet.run("cordon", "b")
    first = fleet.client("shared1", "shared")
    wait_until(lambda: any(s["user"] == "shared" and s["node"] == "a/0"
                           for s in fleet.json("get", "sessions")["sessions"]),
               5 * SLOW, "its record")
    first.signal(signal.SIGSTOP)  # stays where it is
    fleet.run("undrain", "b")
    fleet.run("cordon", "a")
    second = FleetClient(fleet, "shared2", "shared")
    second.spawn()
    try:
        wait_until(lambda: fleet.controller.metrics()[over] > before, 10 * SLOW,
                   "the second device is one too many")
        second.wait_log("session-limit", 10)
    finally:
        first.signal(signal.SIGCONT)
        fleet.run("undrain", "a")
        first.stop()
        second.stop()
