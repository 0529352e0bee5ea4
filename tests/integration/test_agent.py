"""A worker whose config comes from a controller: enrolment, configs, what its agent's death
costs (nothing), usage and quotas. The controller is tests/tools/minictl.c."""

import contextlib
import os
import re
import signal
import socket
import stat
import time

import pytest
from harness import SLOW, curl, curl_sha256, http_get, lint_metrics, parse_metrics, socks_connect
from minictl import EnrolledWorker, MiniController
from servers import TcpServer, body_sha256, tcp_echo, wait_until

LONG = 48 << 20


@pytest.fixture
def ctl(lab):
    c = MiniController(lab)
    c.found(node__fra1__0={"region": "eu"})
    return c


def connect(lab, ctl, **kw):
    """A worker with its config, and a client."""
    w = EnrolledWorker(lab, ctl, **kw).wait_ready()
    c = lab.client("client", [w])
    return w, c


class Echo:
    """A stream that must not break."""

    def __init__(self, servers, client):
        self.server = TcpServer(servers, tcp_echo)
        self.sock = socks_connect(client.socks, "127.0.0.1", self.server.port)

    def holds(self):
        self.sock.sendall(b"ping")
        got = b""
        while len(got) < 4:
            part = self.sock.recv(4 - len(got))
            assert part, "the stream ended"
            got += part
        return got == b"ping"

    def ends_within(self, seconds):
        """Seconds until the stream ends."""
        began = time.monotonic()
        self.sock.settimeout(seconds * SLOW)
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(100):
                pass
        took = time.monotonic() - began
        assert took < seconds * SLOW
        return took


class Download:
    """curl in a thread of the loop: a body that takes its time."""

    def __init__(self, servers, client, origin, n=LONG, limit="12M"):
        import threading

        self.n, self.result = n, None
        url = f"http://127.0.0.1:{origin.port}/bytes/{n}"

        def run():
            try:
                self.result = curl_sha256(client.socks, url, "--limit-rate", limit)
            except BaseException as e:
                self.result = e

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def running(self):
        return self.thread.is_alive()

    def good(self):
        self.thread.join(60 * SLOW)
        return self.result == (self.n, body_sha256(self.n))


# ---- enrolment ----


def test_an_enrolled_worker_makes_its_keys_and_gets_its_config(lab, ctl, servers, origin):
    w, c = connect(lab, ctl)
    assert curl_sha256(c.socks, f"http://127.0.0.1:{origin.port}/bytes/1000")[0] == 1000
    for name in ("static.key", "route.key", "agent/control.key"):
        assert stat.S_IMODE((w.state / name).stat().st_mode) == 0o600, name
    hello = ctl.wait("hello")
    assert hello["peer"] == "worker:fra1/0" and hello["first"] == f"tcp 127.0.0.1:{w.port}"
    assert ctl.wait("ack")["same"]
    ctl.wait("put")  # the session's record
    assert w.run("--check").returncode == 0


def test_a_token_is_good_once_and_keys_are_never_replaced(lab, ctl):
    w = EnrolledWorker(lab, ctl, start=False, enrol=False)
    r = w.run("--check")
    assert r.returncode == 78 and "it is not enrolled" in r.stderr
    r = w.enrol("sallyport-enrol:nonsense")
    assert r.returncode == 64 and "token" in r.stderr
    r = w.enrol(ctl(token="ams1/0")["token"])
    assert r.returncode == 78 and "the token is for ams1/0" in r.stderr
    assert not w.state.exists()
    token = ctl(token="fra1/0")["token"]
    other = EnrolledWorker(lab, ctl, name="other", start=False, enrol=False, node="fra1")
    assert other.run("enroll", "--token", "-", stdin=token + "\n").returncode == 0
    r = w.enrol(token)
    assert r.returncode == 77 and "used" in r.stderr, r.stderr
    key = (w.state / "static.key").read_text()
    assert not (w.state / "fleet.json").exists()
    # the keys that the refused attempt left are the ones that join
    assert w.enrol(ctl(token="fra1/0")["token"]).returncode == 0
    assert (w.state / "static.key").read_text() == key
    r = w.enrol(ctl(token="fra1/0")["token"])
    assert r.returncode == 73 and "enrolled as fra1/0 already" in r.stderr
    assert (w.state / "static.key").read_text() == key


def test_a_controller_that_is_gone_is_told_apart_from_a_refusal(lab, ctl):
    w = EnrolledWorker(lab, ctl, start=False, enrol=False)
    token = ctl(token="fra1/0")["token"]
    ctl.kill()
    r = w.enrol(token)
    assert r.returncode == 69, r.stderr


def test_a_folder_serves_one_worker(lab, ctl):
    w, _ = connect(lab, ctl)
    second = w.run()
    assert second.returncode == 78 and "another worker" in second.stderr
    assert w.ready()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_agent_has_a_user_of_its_own_and_reads_no_key_of_the_exit(lab, ctl):
    lab.dir.chmod(0o711)
    w = EnrolledWorker(lab, ctl, agent={"user": "nobody"}).wait_ready()
    status = open(f"/proc/{w.agent_pid()}/status").read()
    assert re.search(r"^Uid:(\s+65534){4}$", status, re.M), status
    assert re.search(r"^CapEff:\s+0+$", status, re.M)
    # the agent may read its own folder, not the exit's keys, and nobody else either
    assert (w.state / "agent").stat().st_uid == 65534
    assert (w.state / "agent" / "control.key").stat().st_uid == 65534
    assert (w.state / "static.key").stat().st_uid == 0
    assert stat.S_IMODE((w.state / "agent").stat().st_mode) == 0o700
    # and it keeps the last good config there
    seq = ctl.put(tier__standard={"max_streams": 5})
    ctl.wait("ack", applied=seq)
    w.stop()
    ctl.kill()
    w.start().wait_ready()
    assert w.metric("sallyport_worker_config_seq") == seq


# ---- the agent is not in the path of a byte ----


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_download_does_not_notice_an_agent_that_dies_or_hangs(lab, ctl, servers, origin, number):
    w, c = connect(lab, ctl)
    d = Download(servers, c, origin)
    first = w.agent_pid()
    wait_until(lambda: w.metric("sallyport_worker_streams") == 1, 10 * SLOW)
    os.kill(first, number)
    wait_until(lambda: w.agent_pid() != first, 20 * SLOW, "another agent")
    ctl.wait("hello", after=ctl.mark() and 1)
    assert d.good()
    assert w.ready()
    seq = ctl.put(tier__standard={"max_streams": 77})
    ctl.wait("ack", applied=seq)


def test_the_agents_metrics_hold_the_exits_while_it_is_stuck(lab, ctl, origin):
    w, c = connect(lab, ctl)
    assert curl_sha256(c.socks, f"http://127.0.0.1:{origin.port}/bytes/100000")[0] == 100000
    name = 'sallyport_worker_stream_bytes_total{direction="to_client",tier="standard"}'
    name = name.replace('direction="to_client",tier="standard"', 'tier="standard",direction="to_client"')
    wait_until(lambda: w.agent_metric(name) >= 100000, 10 * SLOW, "the exit's counters")
    lint_metrics(http_get(w.agent_admin, "/metrics")[1])
    assert http_get(w.agent_admin, "/readyz")[0] == 200
    w.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: http_get(w.agent_admin, "/readyz")[0] == 503, 20 * SLOW, "not ready")
        assert w.agent_metric(name) >= 100000
        assert w.agent_metric("sallyport_agent_exit_beat_age_seconds") >= 5
        t = ctl.wait("telemetry", after=ctl.mark())
        assert not t["ready"]
    finally:
        w.signal(signal.SIGCONT)
    wait_until(lambda: http_get(w.agent_admin, "/readyz")[0] == 200, 10 * SLOW, "ready again")
    assert curl_sha256(c.socks, f"http://127.0.0.1:{origin.port}/bytes/1000")[0] == 1000


def test_an_agent_ends_with_its_exit_also_when_it_is_stopped(lab, ctl):
    w, _ = connect(lab, ctl)
    agent = w.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    w.kill()

    def gone():
        with contextlib.suppress(FileNotFoundError):
            text = open(f"/proc/{agent}/stat").read()
            return text.rpartition(")")[2].split()[0] == "Z"
        return True

    wait_until(gone, 10 * SLOW, "the agent's end")


# ---- configs ----


def test_every_part_of_a_revision_changes_without_a_dropped_flow(lab, ctl, servers, origin):
    site = TcpServer(servers, tcp_echo)
    w, c = connect(lab, ctl)
    echo = Echo(servers, c)
    url = f"http://127.0.0.1:{origin.port}/bytes/1000"

    def change(**entries):
        seq = ctl.put(**entries)
        ctl.wait("ack", applied=seq)
        assert echo.holds(), entries
        assert w.metric("sallyport_worker_config_seq") == seq

    assert echo.holds()
    # limits and rate of a tier
    change(tier__standard={"max_streams": 1})
    assert curl(c.socks, url)[0] != 0
    change(tier__standard={"rate_bps": 200000})
    began = time.monotonic()
    assert curl_sha256(c.socks, f"http://127.0.0.1:{origin.port}/bytes/400000")[0] == 400000
    assert time.monotonic() - began > 1
    change(tier__standard={}, tier__other={})
    assert curl_sha256(c.socks, url)[0] == 1000
    # the exit policy
    change(policy={"rules": ["deny 127.0.0.0/8"]})
    assert curl(c.socks, url)[0] != 0
    change(policy={"rules": ["allow 127.0.0.0/8"]})
    assert curl_sha256(c.socks, url)[0] == 1000
    # who may sign passes
    change(keys={"pass": [ctl.signing, lab.signer.text]})
    # others are revoked
    change(
        **{
            "revoked/serial/" + "00" * 16: {"until": 1 << 40},
            "revoked/device/" + "11" * 32: {"until": 1 << 40},
            "revoked/user/somebody": {"before": 1 << 40, "until": 1 << 40},
        }
    )
    # the cover site; what clients are told: weight, region, carriers; other nodes; the group
    change(fleet={"name": "test", "cover": f"127.0.0.1:{site.port}"})
    change(region__us={}, node__fra1__0={"region": "us", "weight": 7, "carriers": []})
    change(node__ams1__0={"region": "eu"})
    change(tier__standard={"groups": ["best"]}, node__fra1__0={"region": "us", "group": "best"})
    change(tier__standard={}, node__fra1__0={"region": "us"})
    # draining and no more: the stream goes on, and new ones are made when it is over
    until = int(time.time()) + 600
    change(lease__fra1={"kind": "drain", "until": until, "by": "test"})
    wait_until(lambda: not w.ready(), 5 * SLOW, "draining")
    ctl.wait("telemetry", draining=True, after=ctl.mark())
    assert echo.holds()
    change(lease__fra1=None)
    wait_until(w.ready, 5 * SLOW, "no longer draining")
    ctl.wait("telemetry", draining=False, after=ctl.mark())
    d = lab.client("second", [w])
    assert curl_sha256(d.socks, url)[0] == 1000
    assert echo.holds()
    assert w.metric('sallyport_worker_sessions_ended_total{reason="revoked"}') == 0


def test_a_lease_that_runs_out_ends_by_itself(lab, ctl):
    w, _ = connect(lab, ctl)
    ctl.put(lease__fra1={"kind": "drain", "until": int(time.time()) + 2})
    wait_until(lambda: not w.ready(), 5 * SLOW, "draining")
    ctl.kill()
    wait_until(w.ready, 10 * SLOW, "no longer draining")


@pytest.mark.parametrize("what", ["serial", "device", "user"])
def test_what_is_revoked_ends_within_a_second(lab, ctl, servers, what):
    w, c = connect(lab, ctl)
    echo = Echo(servers, c)
    assert echo.holds()
    before = int(time.time()) + 1000
    key = {
        "serial": f"revoked/serial/{c.pass_serial}",
        "device": f"revoked/device/{c.key.public.hex()}",
        "user": "revoked/user/alice",
    }[what]
    ctl.put(**{key: {"before": before, "until": 1 << 40}})
    assert echo.ends_within(1.0) < 1.0 * SLOW
    name = 'sallyport_worker_sessions_ended_total{reason="revoked"}'
    wait_until(lambda: w.metric(name) == 1, 5 * SLOW, "the session's end is counted")
    if what == "user":  # and back with a pass of later
        ctl.put(**{key: {"before": 1, "until": 1 << 40}})
        wait_until(lambda: c.ready(), 20 * SLOW, "a session")


def test_a_config_that_does_not_hold_is_refused_and_the_old_stays(lab, ctl, servers, origin):
    w, c = connect(lab, ctl)
    echo = Echo(servers, c)
    good = w.metric("sallyport_worker_config_seq")
    bad = ctl.put(policy={"rules": ["deny nonsense"]})
    nack = ctl.wait("nack", refused=bad)
    assert nack["applied"] == good and "exit_policy[0]" in nack["reason"]
    assert echo.holds()
    assert w.metric("sallyport_worker_config_seq") == good
    # also after a start, from its disk
    w.stop()
    w.start().wait_ready()
    assert w.metric("sallyport_worker_config_seq") == good
    fixed = ctl.put(policy={"rules": ["allow 127.0.0.0/8"]})
    ctl.wait("ack", applied=fixed)
    assert w.metric("sallyport_worker_config_seq") == fixed


def test_forged_and_replayed_revisions_change_nothing(lab, ctl):
    w, _ = connect(lab, ctl)
    seq = w.metric("sallyport_worker_config_seq")
    for text in ("", "x" * 100000, "sallyport-signed 1 revision 00 00\n{}", '{"format":1}'):
        ctl(publish=text)
    wait_until(
        lambda: w.agent_metric('sallyport_agent_revisions_unusable_total{reason="invalid"}') == 4,
        10 * SLOW,
        "refused",
    )
    assert w.metric("sallyport_worker_config_seq") == seq and w.ready()


def test_lost_revisions_are_fetched(lab, ctl):
    w, _ = connect(lab, ctl)
    ctl(mute=True)
    for i in range(30):
        seq = ctl.put(tier__standard={"max_streams": 100 + i})
    ctl.wait("ack", applied=seq)
    assert w.metric("sallyport_worker_config_seq") == seq


def test_without_a_controller_a_worker_starts_with_its_last_config(lab, ctl, servers, origin):
    w, c = connect(lab, ctl)
    seq = ctl.put(tier__standard={"max_streams": 5})
    ctl.wait("ack", applied=seq)
    echo = Echo(servers, c)
    ctl.kill()
    assert echo.holds()
    w.kill()
    w.start().wait_ready()
    assert w.metric("sallyport_worker_config_seq") == seq
    wait_until(
        lambda: curl(c.socks, f"http://127.0.0.1:{origin.port}/bytes/1000")[0] == 0,
        20 * SLOW,
        "the client is back",
    )


def test_a_torn_last_known_good_costs_its_tail_only(lab, ctl):
    w, _ = connect(lab, ctl)
    seq = ctl.put(tier__standard={"max_streams": 5})
    ctl.wait("ack", applied=seq)
    wait_until(lambda: (w.state / "agent" / "revisions").exists(), 5 * SLOW)
    w.kill()
    path = w.state / "agent" / "revisions"
    path.write_bytes(path.read_bytes()[:-7])
    ctl(deaf=True)
    w.start().wait_ready()
    assert w.metric("sallyport_worker_config_seq") == seq - 1
    assert "cut off" in w.log
    ctl(deaf=False)
    w.kill()
    w.start()
    ctl.wait("ack", applied=seq, after=ctl.mark())


# ---- usage and quota ----


def test_usage_is_exact_over_kills_of_everything(lab, ctl, servers, origin):
    w, c = connect(lab, ctl)
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    down = 'sallyport_worker_stream_bytes_total{tier="standard",direction="to_client"}'
    up = 'sallyport_worker_stream_bytes_total{tier="standard",direction="from_client"}'
    truth = [0, 0]
    for n in (100000, 250000):
        assert curl_sha256(c.socks, url + str(n))[0] == n
        truth[0] += w.metric(up)
        truth[1] += w.metric(down)
        os.kill(w.agent_pid(), signal.SIGKILL)
        w.kill()
        w.start().wait_ready()
        wait_until(lambda: c.ready() or c._died(), 20 * SLOW, "a session")
        c.before = 0
    wait_until(lambda: ctl.used("alice") == tuple(truth), 20 * SLOW, f"{truth}")
    # the segments of both boots are gone, now that their totals are known
    wait_until(lambda: len(list(w.state.glob("counters.*"))) == 1, 10 * SLOW, "old segments")


def test_usage_that_is_not_stored_is_kept(lab, ctl, servers, origin):
    w, c = connect(lab, ctl)
    ctl(stored=False)
    assert curl_sha256(c.socks, f"http://127.0.0.1:{origin.port}/bytes/5000")[0] == 5000
    w.stop()
    ctl.kill()
    w.start().wait_ready()
    assert len(list(w.state.glob("counters.*"))) == 2
    assert w.agent_metric("sallyport_agent_usage_segments_waiting") == 1


def test_a_used_up_quota_ends_live_flows_within_a_second(lab, ctl, servers, origin):
    w, c = connect(lab, ctl)
    echo = Echo(servers, c)
    assert echo.holds()
    ctl(quota={"alice": 3000000})
    wait_until(lambda: (ctl.last("usage") or {}).get("totals", {}).get("alice"), 10 * SLOW)
    echo.sock.sendall(b"x" * 5)  # changes the total, so that what is left comes back
    ctl.wait("usage", after=ctl.mark())
    url = f"http://127.0.0.1:{origin.port}/bytes/{LONG}"
    status, out = curl(c.socks, url, "--limit-rate", "4M")
    assert status != 0
    assert echo.ends_within(1.5) < 1.5 * SLOW
    name = 'sallyport_worker_sessions_ended_total{reason="quota"}'
    wait_until(lambda: w.metric(name) == 1, 5 * SLOW, "the session's end is counted")
    name = 'sallyport_worker_stream_bytes_total{tier="standard",direction="to_client"}'
    assert 3000000 <= w.metric(name) < LONG / 2  # over by what buffers took at once
    ctl.kill()
    wait_until(
        lambda: w.metric('sallyport_worker_refused_total{reason="quota"}') > 0,
        20 * SLOW,
        "refused, also without a controller",
    )
