"""Real workers under the real controller, as an operator drives them: enrolment, changes,
revocation, drain, usage and quota, and what goes on while controller and Redis are gone."""

import contextlib
import time

import pytest
from controlplane import Controller, Redis, fleet_file, sign_like
from harness import SLOW, Lab, curl, curl_sha256, socks_connect
from minictl import EnrolledWorker
from servers import TcpServer, body_sha256, tcp_echo, wait_until


class Fleet:
    """A controller with its Redis and two workers in one region."""

    def __init__(self, lab):
        self.lab = lab
        self.redis = Redis(lab)
        self.controller = Controller(lab, redis=self.redis).synced()
        sign_like(lab, self.controller)
        self.file = fleet_file(nodes=2, users=3, exit_policy=["allow 127.0.0.0/8"])
        self.controller.apply(self.file)
        self.workers = [EnrolledWorker(lab, None, name=f"n{i}", start=False, enrol=False)
                        for i in range(2)]
        for w in self.workers:
            token = self.controller.ctl("enroll", "--node", w.name).stdout.strip()
            r = w.enrol(token)
            assert r.returncode == 0, r.stderr
            w.start().wait_ready(20)

    def apply(self, **changes):
        self.file.update(changes)
        return self.controller.apply(self.file)

    def sequence(self):
        return self.controller.get("status")["position"]["sequence"]

    def applied(self):
        """Every worker has the head."""
        head = self.sequence()
        wait_until(lambda: all(w.metric("sallyport_worker_config_seq") == head
                               for w in self.workers), 10 * SLOW, f"sequence {head}")

    def client(self, name, user):
        return self.lab.client(name, self.workers[:1], passport={"user": user, "tier": "free"})


@pytest.fixture(scope="module")
def fleet(request, servers, dns, origin):
    place = Lab(servers, dns, origin.port)
    failed = True
    try:
        f = Fleet(place)
        yield f
        failed = any(request.node.nodeid in x
                     for x in getattr(request.session, "stash_failed", ()))
    finally:
        place.close(failed)


def echo(servers, client):
    server = TcpServer(servers, tcp_echo)
    sock = socks_connect(client.socks, "127.0.0.1", server.port)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    return sock


def test_changes_reach_live_sessions_of_all_workers(fleet, servers, origin):
    c = fleet.client("changes", "u0")
    sock = echo(servers, c)
    url = f"http://127.0.0.1:{origin.port}/bytes/1000"
    fleet.apply(exit_policy=["deny 127.0.0.0/8"])
    fleet.applied()
    assert curl(c.socks, url)[0] != 0
    fleet.apply(exit_policy=["allow 127.0.0.0/8"], tiers=[{"name": "free", "max_streams": 50}])
    fleet.applied()
    assert curl_sha256(c.socks, url)[0] == 1000
    sock.sendall(b"y")
    assert sock.recv(1) == b"y"
    c.stop()


def test_a_revoked_user_is_out_within_a_second(fleet, servers):
    c = fleet.client("revoked", "u1")
    sock = echo(servers, c)
    sock.settimeout(5 * SLOW)
    began = time.monotonic()
    fleet.controller.ctl("revoke", "--user", "u1")
    with contextlib.suppress(ConnectionError):
        assert sock.recv(1) == b""
    assert time.monotonic() - began < 1.5 * SLOW  # a program was started, too
    c.stop()


def test_a_drained_node_serves_on_and_comes_back(fleet, servers, origin):
    c = fleet.client("drained", "u0")
    sock = echo(servers, c)
    w = fleet.workers[0]
    fleet.controller.ctl("drain", w.name, "--for", "10m")
    wait_until(lambda: not w.ready(), 5 * SLOW, "draining")
    sock.sendall(b"y")
    assert sock.recv(1) == b"y"
    fleet.controller.ctl("undrain", w.name)
    wait_until(w.ready, 5 * SLOW, "ready again")
    c.stop()


def test_without_controller_and_redis_traffic_and_starts_go_on(fleet, servers, origin):
    c = fleet.client("alone", "u0")
    sock = echo(servers, c)
    head = fleet.sequence()
    fleet.controller.kill()
    fleet.redis.kill()
    try:
        sock.sendall(b"y")
        assert sock.recv(1) == b"y"
        url = f"http://127.0.0.1:{origin.port}/bytes/100000"
        assert curl_sha256(c.socks, url) == (100000, body_sha256(100000))
        w = fleet.workers[1]
        w.kill()
        w.start().wait_ready()
        assert w.metric("sallyport_worker_config_seq") == head
    finally:
        fleet.redis.start()
        fleet.controller.start().synced()
    for w in fleet.workers:
        wait_until(lambda w=w: w.agent_metric("sallyport_agent_controller_up") == 1, 30 * SLOW,
                   "linked again")
    fleet.apply(tiers=[{"name": "free", "max_streams": 60}])
    fleet.applied()
    c.stop()


def test_a_quota_of_the_fleet_file_ends_live_flows(fleet, servers, origin):
    users = [{"name": f"u{i}", "tier": "free"} for i in range(3)]
    users[2]["quota"] = "3M"
    fleet.apply(users=users)
    c = fleet.client("quota", "u2")
    sock = echo(servers, c)
    sock.settimeout(10 * SLOW)
    w = fleet.workers[0]
    wait_until(lambda: w.agent_metric('sallyport_agent_usage_reports_total{result="acknowledged"}'),
               10 * SLOW, "a report")
    url = f"http://127.0.0.1:{origin.port}/bytes/{48 << 20}"
    assert curl(c.socks, url, "--limit-rate", "4M")[0] != 0
    with contextlib.suppress(ConnectionError):
        assert sock.recv(1) == b""
    name = 'sallyport_worker_sessions_ended_total{reason="quota"}'
    wait_until(lambda: w.metric(name) >= 1, 5 * SLOW, "the session's end is counted")
    c.stop()
