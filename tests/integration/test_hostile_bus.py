"""A controller's bus against peers that mean harm: a seized worker with its own good key, and
strangers. What they say is refused and counted, told at a bounded rate, and another worker
gets its revisions all the while."""

import json
import os
import resource
import shutil
import socket
import threading

import pytest
from fleetlab import FleetLab
from harness import SLOW
from hostile import (ADOPTED, FRESH, NOT_YOURS, REFUSED, SESSION, STORED, UNAVAILABLE, WELCOME,
                     Hostile)
from servers import wait_until

LINES = 8  # of each kind of event: a burst of 4 and 1 a second


@pytest.fixture(name="fleet")
def _fleet(lab):
    fleet = FleetLab(lab)
    assert fleet["a"].enrol().returncode == 0  # and is seized before it ran
    return fleet.start("b")


def counted(fleet, family, **labels):
    text = ",".join(f'{k}="{v}"' for k, v in labels.items())
    return fleet.controller.metrics()[f"sallyport_controller_{family}_total{{{text}}}"]


def messages(fleet, result):
    return counted(fleet, "bus_messages", result=result)


def told(fleet, kind):
    return [e for e in fleet.json("get", "events")["events"] if e["kind"] == kind]


def the_other_goes_on(fleet):
    """A change reaches b, whose link was never lost."""
    fleet.apply(refresh=f"{2 + the_other_goes_on.turn}s")
    the_other_goes_on.turn += 1
    head = fleet.head()[1]

    def node():
        return next(n for n in fleet.json("get", "nodes")["nodes"] if n["name"] == "b/0")

    wait_until(lambda: node().get("applied", {}).get("sequence") == head, 5 * SLOW,
               "the other worker has the change")
    assert node()["link"] == "up"
    assert [e for e in told(fleet, "peer-lost") if e["about"] == "worker:b/0"] == []


the_other_goes_on.turn = 0


def test_forged_wrong_and_out_of_order_messages_cost_nobody_but_their_sender(fleet):
    at = fleet.head()
    h = Hostile(fleet["a"])
    assert h.link() == "up"
    assert h.ask("telemetry")["reason"] == "say hello first"
    assert messages(fleet, "no-hello") == 1
    h.say("hello")
    assert h.hear()["kind"] == WELCOME
    before = messages(fleet, "malformed")
    h.bytes(100, times=50)                                  # zeroes
    h.bytes(0, times=50)                                    # nothing: no version
    h.bytes(5, of="0801a20601", times=50)                   # cut off in a field
    h.bytes(3, frames=5, times=50)                          # not one frame
    h.say("telemetry", version=9, times=50)
    h.say("telemetry", boot=2, times=50)                    # of a boot that did not say hello
    h.say("ack", sequence=1, hash_len=5, times=50)
    h.say("enrol", times=50)                                # here, not on its own socket
    wait_until(lambda: messages(fleet, "malformed") - before == 400, 10 * SLOW, "all counted")
    assert 1 <= len(told(fleet, "peer-malformed")) <= LINES
    for kind in ("probe", "pass"):                          # a vantage's
        assert h.ask(kind)["reason"] == "not for you"
    assert messages(fleet, "not-allowed") == 2
    h.say("ack", epoch=at[0] + 90, sequence=10**9, hash_len=32)   # ahead of everybody
    wait_until(lambda: told(fleet, "peer-ahead"), 10 * SLOW, "that it is ahead is told")
    h.say("ack", epoch=at[0], sequence=at[1], hash_len=32)        # another history
    wait_until(lambda: told(fleet, "peer-fork"), 10 * SLOW, "that it forked is told")
    assert fleet.head() == at
    the_other_goes_on(fleet)
    assert h.ask("fetch", snapshot=True)["kind"] != REFUSED       # it still has its link


def test_a_message_that_is_too_long_costs_its_sender_the_link(fleet):
    h = Hostile(fleet["a"]).join()
    taken = messages(fleet, "taken")
    h.bytes((1 << 20) + 1)
    h.say("telemetry")
    assert h.hear(wait_for=1) is None
    the_other_goes_on(fleet)
    assert messages(fleet, "taken") < taken + 100
    h.join()                                                # it may come back


def test_who_has_no_key_or_anothers_name_is_nobody(fleet):
    h = Hostile(fleet["a"])
    assert h.link(key="stranger") == "refused"
    assert counted(fleet, "bus_handshakes", domain="fleet", result="refused") >= 1
    h.join(route="worker:b/0")                              # a name of its own choice
    b = fleet.json("get", "nodes")["nodes"]
    assert [n["program"] for n in b if n["name"] == "a/0"] == [""]
    assert [n["program"] for n in b if n["name"] == "b/0"][0].startswith("sallyport-worker")
    id_ = "ab" * 16
    assert h.ask("put", id=id_, device="cd" * 32, user="alice", home="b/0")["result"] == STORED
    sessions = fleet.json("get", "sessions")["sessions"]
    assert [s["node"] for s in sessions if s["id"] == id_] == ["a/0"]
    the_other_goes_on(fleet)


def test_strangers_may_say_one_thing_and_not_often(fleet):
    h = Hostile(fleet["a"])
    assert h.link(key="stranger", enrol=True) == "up"
    for kind in ("hello", "fetch", "put", "adopt", "usage", "probe"):
        h.say(kind)
    wait_until(lambda: messages(fleet, "malformed") >= 6, 10 * SLOW, "all counted")
    assert h.hear(wait_for=0.3) is None
    assert "token" in h.ask("enrol", token="sallyport-enrol:AAAA")["reason"]
    assert h.ask("enrol", token="x" * 9000) is None
    assert h.link(key="stranger", enrol=True) == "up"
    h.bytes(100000)                                         # beyond that socket's limit
    assert h.ask("enrol") is None
    the_other_goes_on(fleet)


def test_a_session_is_taken_over_only_by_who_met_its_device(fleet):
    client = fleet.client()
    session = wait_until(lambda: fleet.json("get", "sessions")["sessions"], 10 * SLOW,
                         "a record")[0]
    assert session["node"] == "b/0"
    h = Hostile(fleet["a"]).join()
    claim = {"id": session["id"], "device": "00" * 32, "user": "alice", "attach": 1 << 20}
    assert h.ask("adopt", **claim, left=True)["result"] == NOT_YOURS
    assert h.ask("put", **claim, home="a/0")["kind"] == SESSION
    assert counted(fleet, "directory_results", call="put", result="other-device") == 1
    assert counted(fleet, "directory_results", call="adopt", result="not-yours") == 1
    h.say("drop", id=session["id"])                         # not at home there
    none = h.ask("adopt", id="00" * 16, device="00" * 32, user="alice")
    assert none["result"] in (FRESH, UNAVAILABLE)
    assert h.ask("adopt", id="", device="", user="")["result"] != ADOPTED
    after = fleet.json("get", "sessions")["sessions"]
    assert [s["node"] for s in after if s["id"] == session["id"]] == ["b/0"]
    assert 1 <= len(told(fleet, "session-other-device")) <= LINES
    assert client.ready()
    the_other_goes_on(fleet)


def test_a_removed_key_counts_no_more_at_once_and_its_links_are_cut(fleet):
    h = Hostile(fleet["a"]).join()
    fleet.apply(nodes=[n for n in fleet.fleet["nodes"] if n["name"] != "a"])
    h.say("telemetry", times=200)
    wait_until(lambda: messages(fleet, "no-key") > 0 or told(fleet, "links-cut"), 10 * SLOW,
               "its words count no more")
    wait_until(lambda: told(fleet, "links-cut"), 10 * SLOW, "its link is cut")
    assert h.link() == "refused"
    the_other_goes_on(fleet)


def test_a_flood_of_small_messages_is_dropped_and_others_are_served(fleet):
    h = Hostile(fleet["a"]).join()
    before = fleet.controller.rss_kb()
    flood = threading.Thread(target=h.say, args=("telemetry",), kwargs={"times": 150_000})
    flood.start()
    try:
        wait_until(lambda: messages(fleet, "flood") > 0, 20 * SLOW, "the flood is dropped")
        the_other_goes_on(fleet)
    finally:
        flood.join()
    the_other_goes_on(fleet)
    assert fleet.controller.rss_kb() - before < 60_000 * SLOW
    assert 1 <= len(told(fleet, "peer-flood")) <= LINES * 4 * SLOW


def test_a_peer_that_never_reads_is_owed_little_memory(fleet):
    h = Hostile(fleet["a"]).join(deaf=True)
    address = {"kind": "tcp", "listen": "127.0.0.1:1"}
    fleet.apply(nodes=fleet.fleet["nodes"] + [
        {"name": f"node{i}", "region": "eu",
         "carriers": [{**address, "address": f"10.9.{i // 200}.{i % 200 + 1}:443"}]}
        for i in range(2000)])
    before = fleet.controller.rss_kb()

    def ask_again():
        h.say("fetch", from_head=True, times=20)
        return counted(fleet, "bus_sent", result="not-read") > 20

    wait_until(ask_again, 60 * SLOW, "it is owed enough")
    assert fleet.controller.rss_kb() - before < 100_000 * SLOW
    the_other_goes_on(fleet)


def test_connections_without_end_leave_links_alone(fleet):
    pid, ports = fleet.controller.pid, [
        int(fleet.controller.config["bus"][k].rsplit(":", 1)[1])
        for k in ("router", "publisher", "enrol")]
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = len(os.listdir(f"/proc/{pid}/fd")) + 100
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, old[1]))
    idle = []
    try:
        for i in range(360):
            s = socket.create_connection(("127.0.0.1", ports[i % 3]), 5 * SLOW)
            s.sendall([b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x03",
                       b"\x16\x03\x01\x02\x00", os.urandom(200)][i % 5])
            idle.append(s)
        the_other_goes_on(fleet)
    finally:
        for s in idle:
            s.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
    h = Hostile(fleet["a"])
    wait_until(lambda: h.link() == "up", 20 * SLOW, "there is room again")
    the_other_goes_on(fleet)


def record(listener, target, bytes_of_client):
    """Hands on one connection and keeps what the client sent."""
    client, _ = listener.accept()
    server = socket.create_connection(target)

    def back():
        while part := server.recv(65536):
            client.sendall(part)

    threading.Thread(target=back, daemon=True).start()
    while part := client.recv(65536):
        bytes_of_client.append(part)
        server.sendall(part)
    server.shutdown(socket.SHUT_RDWR)


def test_a_recorded_link_cannot_be_played_again(fleet):
    router = fleet.controller.config["bus"]["router"]
    host, port = router.rsplit(":", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        folder = fleet.dir / "recorded"
        shutil.copytree(fleet["a"].dir / "state", folder)
        enrolled = json.loads((folder / "fleet.json").read_text())
        enrolled["controllers"][0]["router"] = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        (folder / "fleet.json").write_text(json.dumps(enrolled))
        sent = []
        thread = threading.Thread(target=record, args=(listener, (host, int(port)), sent))
        thread.start()
        h = Hostile(fleet["a"], folder).join()
        h.say("telemetry", times=20)
        h.stop()
        thread.join(20 * SLOW)
    assert sum(map(len, sent)) > 1000

    def hellos():
        return sum(counted(fleet, "hellos", result=r)
                   for r in ("new", "again", "other-boot", "refused"))

    before = hellos()
    for cut in (None, -1, -100):
        with socket.create_connection((host, int(port)), 5 * SLOW) as s:
            s.settimeout(15 * SLOW)
            s.sendall(b"".join(sent)[:cut])
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(65536):
                    pass
            except ConnectionError:
                pass
    the_other_goes_on(fleet)
    assert hellos() == before
