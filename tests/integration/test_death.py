"""All of a node dies, with its link; or it only seems so. In namespaces, with the real
programs, health checkers among them: new flows go on at another node at once, what can be
redone is, and what cannot is reset as soon as the death is known by evidence, never before."""

import shutil
import time

import pytest
from deathlab import Echo, Flows, Place, Pulse, client_hello
from harness import SLOW, SocksUdp, recv_exact
from linklab import needs_net
from servers import wait_until

pytestmark = needs_net
NO_RELAY = {"relay": {"use": False}}


@pytest.fixture
def place(lab, servers):
    p = Place(lab, servers)
    yield p
    p.close()


def quiet_stream(place, data):
    s = place.connect(place.world.quiet.port)
    s.sendall(data)
    return s


def test_when_a_node_dies_new_flows_go_on_at_once_and_old_ones_end_with_evidence(place):
    busy, idle = place.new_client("busy"), place.new_client("idle")
    home = place.home
    while busy.in_use() != idle.in_use():  # an order of exits is a client's own
        busy = place.new_client(f"busy{len(place.clients)}")
    place.client = idle
    hello, place.world.mute = client_hello(), 2
    tls = quiet_stream(place, hello)
    http = quiet_stream(place, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
    old = [Echo(place, n + 1) for n in range(5)]
    for e in old:
        e.say(b"before")
    pulse = Pulse(place, busy, 100)
    wait_until(lambda: len(place.world.hellos) == 2, 10 * SLOW, "both said something")
    time.sleep(0.6)  # so that `idle` is: heartbeats come rarely by now
    died = place.die(home)
    new = [Flows(place, c, died + 2.5) for c in (busy, idle)]
    for flows in new:
        took = flows.finish()
        print(f"{flows.client.name}: first byte of {len(took)} new flows, at most "
              f"{max(took) * 1000:.0f} ms")
        assert max(took) < 1.0 * SLOW + 0.5, took
    # Nothing but the hello was written there, and nothing came back: nobody notices.
    tls.settimeout(10 * SLOW)
    assert recv_exact(tls, 6 + len(hello)) == b"answer" + hello
    sources = [source for source, data in place.world.hellos if data == hello]
    assert len(sources) == 2 and sources[0] != sources[1]
    ended = [e.ends(15) - died for e in old]
    print(f"resets {min(ended):.2f} to {max(ended):.2f} s after the death")
    assert max(ended) < 4.0 * SLOW + 2.0
    assert min(ended) > 3.0  # peers must have failed for so long
    http.settimeout(5 * SLOW)
    with pytest.raises(ConnectionResetError):
        http.recv(1)
    assert len(place.world.hellos) == 3  # a request is not made twice
    lost = place.moved("lost_by", idle)
    assert lost["adopted"] == len(old) + 1 and place.moved("streams_lost", idle) == len(old) + 1
    assert idle.status()["connections"]["redone_hello"] == 1
    assert place.moved("streams_parked", idle) == 0
    pulse.stop()
    assert isinstance(pulse.error, (ConnectionError, EOFError))
    given = place.given()
    assert given["silent"] >= 2 and not given.get("restarted") and not given.get("removed")


def test_a_node_that_only_seems_dead_loses_no_stream(place):
    """Its control link is gone; or its client cannot reach it; or both, but peers can; or it
    is away from everybody for less than 3 s."""
    place.new_client(**NO_RELAY)
    home = place.home
    streams = [Echo(place, n + 1) for n in range(3)]

    def well(what):
        for e in streams:
            e.say(b"again " * 50)
        assert place.moved("streams_lost") == 0, what
        assert not any(place.given().values()), what

    well("before")
    place.cut(home, "hub")
    began = time.monotonic()
    while time.monotonic() < began + 5:
        well("the control link is gone")
        time.sleep(0.2)
    place.cut(home, "client")
    for e in streams:
        e.send(b"into the dark")
    wait_until(lambda: place.moved("streams_parked") == len(streams), 10 * SLOW, "they wait")
    time.sleep(6)
    assert place.moved("streams_parked") == len(streams)
    assert place.moved("asked") >= 3
    place.join(home, "client")
    for e in streams:
        assert recv_exact(e.sock, 13) == b"into the dark"
    well("neither controller nor client could reach it")
    assert place.moved("streams_resumed") >= len(streams)
    place.join(home, "hub")
    place.cut(home, "client")
    for e in streams:
        e.send(b"blocked")
    time.sleep(5)
    assert place.moved("streams_lost") == 0
    place.join(home, "client")
    for e in streams:
        assert recv_exact(e.sock, 7) == b"blocked"
    well("the client could not reach it")
    for _ in range(2):
        wait_until(lambda: all(n["health"] == "healthy" and n["link"] == "up" for n in
                               place.fleet.operator.json("get", "nodes")["nodes"]),
                   60 * SLOW, "all is well")
        place.cut(home)
        for e in streams:
            e.send(b"frozen")
        time.sleep(2.5)
        place.join(home)
        for e in streams:
            assert recv_exact(e.sock, 6) == b"frozen"
        well("it was away for 2.5 s")


def test_streams_wait_for_a_node_that_is_away_when_nobody_can_attest_its_death(place):
    place.new_client(**NO_RELAY)
    home = place.home
    streams = [Echo(place, n + 1) for n in range(3)]
    place.fleet.controller.kill()
    place.cut(home)
    for e in streams:
        e.send(b"x" * 10000)
    time.sleep(8)
    assert place.first_byte() < 5 * SLOW
    assert place.moved("streams_parked") == len(streams)
    place.join(home)
    for e in streams:
        assert recv_exact(e.sock, 10000) == b"x" * 10000
    assert place.moved("streams_lost") == 0


def test_a_home_that_answers_with_another_boot_is_evidence_at_once(place):
    place.new_client(**NO_RELAY)
    home = place.home
    e = Echo(place, 1)
    began = time.monotonic()
    place.fleet[home].kill()
    place.fleet[home].start()
    took = e.ends(20) - began
    print(f"reset {took:.2f} s after a restart began")
    lost = place.moved("lost_by")
    assert lost["timeout"] == 0 and lost["restarted"] + lost["adopted"] == 1


def test_look_ups_go_on_over_a_death(place):
    """One every 20 ms; a resolver asks again after 1 s and 2 s."""
    from netfleet import Answerer  # pylint: disable=import-outside-toplevel
    from scene_death import Lookups  # pylint: disable=import-outside-toplevel
    client = place.new_client()
    server = place.run.keep(Answerer(place.net, "world", "10.77.0.4"))
    lookups = place.run.keep(Lookups(place.fleet, client, server.address))
    time.sleep(1)
    place.die(place.home)
    time.sleep(5)
    asked, answered, took = lookups.finish()
    late = sum(ms > 950 for ms in took)
    print(f"{answered} of {asked} answered, {late} after another question; slowest "
          f"{took[-1]:.0f} ms")
    assert asked > 100 and answered >= asked * 0.999
    # What was on its way is asked once more by the client itself, before the resolver does.
    assert client.status()["udp"]["lookups_asked_again"] >= 5


def test_a_wiped_worker_costs_no_more_than_a_second_of_counters(place):
    """Its processes, its memory and its disk are gone at once, in the middle of a download."""
    client = place.new_client()
    home, rate = place.home, 200_000
    got, lost = [], None
    with place.connect(place.world.quiet.port) as s:  # it sends nothing until it is asked
        place.world.mute = 0
        s.settimeout(10 * SLOW)
        s.sendall(b"flood %d" % rate)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            got.append((time.monotonic(), len(s.recv(1 << 16))))
        died = place.die(home)
        shutil.rmtree(place.fleet[home].dir / "state")
    all_before = sum(n for at, n in got if at <= died)
    told = sum(n for at, n in got if at <= died - 1.0)

    def used():
        (user,) = place.fleet.operator.json("get", "users")["users"]
        return user["used_up"] + user["used_down"]

    time.sleep(1)
    lost = all_before - used()
    print(f"{all_before} bytes were given to the client, {lost} of them are not counted: "
          f"{lost / rate:.2f} s")
    assert used() >= told * (1 if SLOW == 1 else 0.5)
    wait_until(lambda: place.moved("adopted") >= 1, 15 * SLOW, "the session goes on")
    assert place.first_byte(client) < 2 * SLOW


def test_no_stream_has_two_homes_whatever_is_cut_from_whom(place):
    """The home is cut from the control plane and from the other worker with its client
    attached to it; then the client is on the other side; then all is whole again."""
    place.new_client(**NO_RELAY)
    home = place.home
    other = {"a": "b", "b": "a"}[home]
    first = [Echo(place, n + 1) for n in range(3)]
    place.cut(home, "hub", "eyes", other)
    began = time.monotonic()
    while time.monotonic() < began + 6:
        for e in first:
            e.say(b"on the small side " * 20)
        time.sleep(0.1)
    meanwhile = Echo(place, 10)  # the config has only the other one by now
    meanwhile.say(b"new on the large side")
    assert place.moved("streams_lost") == 0 and not any(place.given().values())
    place.cut(home, "client")
    changed = time.monotonic()
    for e in first:
        e.send(b"never")
    second = Echo(place, 20)
    second.say(b"on the large side")
    ended = [e.ends(20) - changed for e in first]
    print(f"ended {max(ended):.2f} s after the client changed sides")
    assert place.moved("lost_by")["adopted"] == 3
    assert place.given()["silent"] == 1
    place.join(home, "client", "hub", "eyes", other)
    lost = 'sallyport_worker_sessions_ended_total{reason="home-lost"}'
    wait_until(lambda: ended_at(place, home, lost) >= 1, 90 * SLOW,
               "the old home to let go of the session")
    second.say(b"still there")
    third = Echo(place, 30)
    third.say(b"when all is whole")
    meanwhile.say(b"and this one")
    for e in (*first, meanwhile, second, third):
        by = place.world.heard[e.tag]
        assert len(by) == 1, f"stream {e.tag} has two homes"
        (got,) = by.values()
        assert e.said.startswith(got), e.tag
        if e not in first:
            assert got == e.said


def ended_at(place, node, name):
    """Of the worker's own metrics."""
    from harness import http_get, parse_metrics  # pylint: disable=import-outside-toplevel
    with place.net.inside(node):
        return parse_metrics(http_get(place.fleet[node].admin, "/metrics")[1]).get(name, 0)
