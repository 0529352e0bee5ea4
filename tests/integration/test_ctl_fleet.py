"""What an operator asks of a whole fleet by sallyportctl: lists, health, doctor, leases."""

import json
import re
import shutil
import signal
import subprocess
import time

import pytest
from fleetlab import FleetLab
from harness import BUILD, SLOW, Lab, curl
from servers import wait_until

KINDS = ("nodes", "users", "sessions", "revisions", "events", "leases", "tokens", "vantages")


@pytest.fixture(scope="module")
def shared(request, servers, dns, origin):
    place = Lab(servers, dns, origin.port)
    try:
        fleet = FleetLab(place, workers=(("a", "eu"), ("b", "eu"), ("c", "us")),
                         users=("alice", "bob"))
        fleet.apply(health={"hold_down": "1s"})
        fleet.start()
        fleet.vantages(("v1", "eu"), ("v2", "us"),
                       probe={"interval": "1s", "deadline": f"{min(500 * SLOW, 900)}ms"})
        fleet.user_client = fleet.client()
        assert curl(fleet.user_client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
        yield fleet
    finally:
        place.close()


@pytest.fixture
def fleet(shared):
    """Without leases, whatever tests did before."""
    for lease in shared.json("get", "leases")["leases"]:
        shared.run("undrain", lease["node"])
    return shared


@pytest.fixture
def well(fleet):
    """And everything is well."""
    wait_until(lambda: {n["health"] for n in nodes(fleet)} == {"healthy"} and
               {v["state"] for v in fleet.json("get", "vantages")["vantages"]} == {"votes"},
               60 * SLOW, "all nodes are well")
    return fleet


def nodes(fleet, *options):
    return fleet.json("get", "nodes", *options)["nodes"]


def refused(fleet, code, said, *argv):
    done = fleet.run(*argv, check=False)
    assert done.returncode == code and said in done.stderr, (argv, done.returncode, done.stderr)
    assert done.stdout == "" and done.stderr.count("\n") == 1


# ---- lists ----

@pytest.mark.parametrize("kind", KINDS)
def test_each_list_is_a_table_of_a_screens_width_and_json(fleet, kind):
    fleet.run("drain", "a", "--reason", "a disk is changed")
    fleet.run("token", "make", "bob", "--valid", "1h")
    text = fleet.run("get", kind).stdout
    lines = text.splitlines()
    assert len(lines) > 1 and re.fullmatch(r"[A-Z% ]+", lines[0]), text
    table = [re.sub(r" by \w+ \S+$", "", line) for line in lines]
    limit = 120 if kind != "events" else 320  # their last column is a sentence
    assert all(len(line) <= limit and line == line.rstrip() for line in table), text
    assert len(fleet.json("get", kind)[kind]) >= len(lines) - 1


def test_nodes_are_filtered(well):
    assert [n["name"] for n in nodes(well, "--region", "us")] == ["c/0"]
    assert len(nodes(well, "--region", "eu", "--state", "healthy", "--link", "up")) == 2
    assert nodes(well, "--state", "down") == []
    assert well.run("get", "nodes", "--region", "mars").stdout == "no nodes\n"


def test_a_long_list_comes_in_pages(fleet):
    seen, after = [], []
    for _ in range(5):
        page = fleet.json("get", "nodes", "--limit", "2", *after)
        seen += [n["name"] for n in page["nodes"]]
        assert page["total"] == 3
        if "next" not in page:
            break
        after = ["--after", page["next"]]
    assert seen == ["a/0", "b/0", "c/0"]
    assert "more of 3: --after a/0" in fleet.run("get", "nodes", "--limit", "1").stdout
    assert "more" not in fleet.run("get", "nodes", "--limit", "3").stdout
    refused(fleet, 65, "limit: want", "get", "nodes", "--limit", "0")
    refused(fleet, 65, "limit: want a number", "get", "nodes", "--limit", "many")


def test_users_and_tokens_and_sessions_are_filtered(fleet):
    token = fleet.run("token", "make", "bob").stdout
    assert token not in fleet.run("get", "tokens", "--json").stdout
    assert {t["user"] for t in fleet.json("get", "tokens", "--user", "bob")["tokens"]} == {"bob"}
    assert len(fleet.json("get", "users", "--tier", "standard")["users"]) == 2
    assert fleet.json("get", "users", "--tier", "gold")["users"] == []
    used = fleet.user_client.in_use()
    wait_until(lambda: [s for s in fleet.json("get", "sessions", "--node", used)["sessions"]
                        if s["user"] == "alice"], 10 * SLOW, "her session is in the directory")
    (session, *_) = fleet.json("get", "sessions", "--user", "alice", "--node", f"{used}/0")["sessions"]
    assert session["tier"] == "standard" and abs(session["put"] - time.time()) < 200
    assert fleet.json("get", "sessions", "--user", "bob")["sessions"] == []
    assert len(fleet.json("get", "sessions", "--limit", "1")["sessions"]) == 1
    refused(fleet, 66, 'no user "eve"', "get", "sessions", "--user", "eve")
    refused(fleet, 66, 'no node "z"', "get", "sessions", "--node", "z")


def test_events_are_those_of_a_time_a_kind_and_a_node(fleet):
    fleet.run("cordon", "b", "--reason", "x")
    fleet.run("undrain", "b")
    of = fleet.json("get", "events", "--node", "b")["events"]
    assert {"enrolled", "peer-up", "lease", "lease-ended"} <= {e["kind"] for e in of}
    assert all(re.fullmatch(r"(worker[:/])?b(/0)?", e["about"]) for e in of)
    assert {e["kind"] for e in fleet.json("get", "events", "--kind", "lease")["events"]} == {"lease"}
    last = fleet.json("get", "events", "--limit", "1")["events"][0]
    assert last["epoch"] >= 1 and last["sequence"] == fleet.head()[1]
    assert fleet.json("get", "events", "--since", "2099-01-01T00:00:00Z")["events"] == []
    assert len(fleet.json("get", "events", "--since", "1h")["events"]) > 5
    refused(fleet, 64, "--since noon: want a duration", "get", "events", "--since", "noon")


def test_an_event_is_a_line_of_the_log_with_epoch_and_sequence(fleet):
    fleet.run("cordon", "b", "--reason", "x")
    epoch, sequence = fleet.head()
    line = fleet.controller.wait_log(rf"comp=event .*event=lease about=b .*sequence={sequence}\b")
    assert f"epoch={epoch} " in line.string[line.start():line.end() + 40]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_events_are_followed(fleet, form):
    p = subprocess.Popen(
        [BUILD / "bin" / "sallyportctl", "get", "events", "--follow", "--kind", "lease",
         "--limit", "1", "--socket", fleet.controller.socket, *form],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for i in range(2):
            fleet.run("cordon", "b", "--reason", f"number {i}")  # the same changes nothing
            while "lease" not in (line := p.stdout.readline()) or (not form and line[0] == "T"):
                assert line
            if form:
                assert json.loads(line)["kind"] == "lease"
    finally:
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=10)


# ---- leases ----

def test_a_lease_says_when_it_ends_and_a_wrong_one_says_why(fleet):
    out = fleet.run("drain", "a", "--deadline", "2h", "--reason", "new disk").stdout
    assert re.fullmatch(r"a drains until \S+Z \(in 1 h 59 min\)\n|a drains until \S+Z \(in 2 h 0 min\)\n", out)
    (lease,) = fleet.json("get", "leases")["leases"]
    assert lease["reason"] == "new disk" and lease["kind"] == "drain" and lease["by"]
    refused(fleet, 2, "1 of 2 nodes in region eu", "drain", "b")
    fleet.run("cordon", "b", "--force")
    refused(fleet, 2, "c is the only node of region us", "cordon", "c")
    refused(fleet, 66, '"a/0" is a worker, and leases are of whole nodes: a', "drain", "a/0")
    refused(fleet, 66, 'no node "aa"; is it a?', "cordon", "aa")
    refused(fleet, 66, "get nodes lists them", "cordon", "nobody")
    refused(fleet, 2, "out already (a), and at most 1 may be", "drain", "b")
    refused(fleet, 64, "--for", "drain", "c", "--for", "soon")
    refused(fleet, 64, "--deadline", "drain", "c", "--deadline", "soon")
    refused(fleet, 64, "one of them", "drain", "c", "--deadline", "1h", "--for", "1h")
    refused(fleet, 64, "--wait", "cordon", "c", "--wait")
    refused(fleet, 64, "--for", "drain", "c", "--for", "0s")
    refused(fleet, 65, "for_s: want 1 to", "drain", "c", "--for", "5000d")
    refused(fleet, 65, "reason: want at most", "drain", "c", "--reason", "x" * 1000)
    refused(fleet, 66, "neither cordoned nor draining", "undrain", "c")
    assert fleet.run("undrain", "a").stdout == "a takes clients again\n"
    fleet.run("uncordon", "b")


def test_a_dry_run_shows_the_difference_and_exits_with_0(fleet):
    before = fleet.head()
    changed = dict(fleet.fleet, exit_policy=["127.0.0.0/8"])
    saved = fleet.fleet
    try:
        done = fleet.apply("--dry-run", **changed)
        assert done.returncode == 0 and "~ policy" in done.stdout and fleet.head() == before
    finally:
        fleet.fleet = dict(saved, exit_policy=["127.0.0.0/8", "[::1]"])
    assert "nothing to change" in fleet.apply("--dry-run").stdout


def test_status_says_where_the_controller_stands(well):
    out = well.run("status").stdout
    assert re.search(r"^revision +epoch %d, sequence %d, hash \w{12}$" % well.head(), out, re.M)
    assert re.search(r"^nodes +3, 3 with a link$", out, re.M)
    assert re.search(r"^redis +at the same revision$", out, re.M)
    assert well.json("status")["vantages_linked"] == 2


# ---- health ----

def test_health_says_what_each_vantage_sees_of_a_node(well):
    wait_until(lambda: {v["sees"] for v in well.json("get", "vantages")["vantages"]} == {3},
               10 * SLOW, "both have seen all")
    wait_until(lambda: min(v["row"] for v in well.json("health", "a")["nodes"][0]["views"]) > 1,
               10 * SLOW, "and a more than once")
    out = well.run("health").stdout
    assert re.search(r"^a/0 +eu +healthy +\d+\w +100 ", out, re.M)
    assert re.search(r"^v2 +us +votes +3 +0$", out, re.M)
    (node,) = well.json("health", "a")["nodes"]
    views = {v["vantage"]: v for v in node["views"]}
    assert set(views) == {"v1", "v2"}
    for v in views.values():
        assert v["ok"] and v["votes"] and v["row"] >= 2
        assert 0 < v["rungs_ms"]["handshake"] < 500 * SLOW and v["age_ms"] < 5000 * SLOW
    assert len(well.json("health", "a/0")["nodes"]) == 1
    assert [n["name"] for n in well.json("health", "--region", "us")["nodes"]] == ["c/0"]
    assert well.json("health", "--state", "down")["nodes"] == []
    refused(well, 66, "get nodes lists them", "health", "nobody")


def test_a_node_that_hangs_is_named_with_rung_reason_and_hold_down(well):
    well["a"].signal(signal.SIGSTOP)
    try:
        wait_until(lambda: nodes(well)[0]["health"] == "down", 15 * SLOW, "it is down")
        (node,) = well.json("health", "a")["nodes"]
        assert node["cause"] == "dead" and not node["offered"] and node["flaps"] >= 1
        assert node["held_s"] > 0
        assert {(f["vantage"], f["rung"]) for f in node["failures"]} == {
            ("v1", "handshake"), ("v2", "handshake")}
        assert "v1 handshake/timeout, v2 handshake/timeout" in well.run("health").stdout
        detail = well.run("health", "a").stdout
        assert re.search(r"^v1 +tcp 127\.0\.0\.1:\d+ +no +\d+ +\d+\w +\d+\w +handshake +timeout", detail, re.M)
        done = well.run("doctor", check=False)
        assert done.returncode == 2
        assert re.search(r"^fail +node +a/0: down: ", done.stdout, re.M), done.stdout
    finally:
        well["a"].signal(signal.SIGCONT)


def test_a_node_that_was_drained_is_well_again_for_everyone(well):
    """Vantages keep one session each, which was there before the lease."""
    well.run("drain", "a")
    wait_until(lambda: all(v["reason"] == "draining" and v["row"] > 1
                           for v in well.json("health", "a")["nodes"][0]["views"]),
               15 * SLOW, "both hear that it drains")
    well.run("undrain", "a")
    wait_until(lambda: all(v["ok"] for v in well.json("health", "a")["nodes"][0]["views"]),
               30 * SLOW, "both see it well")


# ---- doctor ----

def configs(fleet):
    paths = [fleet.controller.config_path, fleet["a"].config_path, fleet.user_client.config_path,
             fleet.dir / "vantage-v1" / "healthcheck.yaml"]
    return [word for p in paths for word in ("--config", p)]


def diagnosed(fleet, code, *argv):
    """{(area, about): check} of a doctor that ends with `code`."""
    done = fleet.run("doctor", "--json", *argv, check=False)
    assert done.returncode == code and not done.stderr, (done.stdout, done.stderr)
    checks = json.loads(done.stdout)["checks"]
    assert all(("remedy" in c) == (c["grade"] != "ok") for c in checks)
    return {(c["area"], c["about"]): c for c in checks}


def test_a_fleet_that_is_well_has_nothing_for_the_doctor(well):
    found = diagnosed(well, 0, *configs(well))
    areas = {area for area, _ in found}
    assert {"config", "secrets", "disk", "controller", "clock", "redis", "revisions", "stream",
            "journal", "nodes", "vantages", "leases"} <= areas
    assert len([1 for area, _ in found if area == "config"]) == 4
    assert found["nodes", ""]["text"].startswith("3 of 3 are linked and at ")
    text = well.run("doctor", *configs(well)).stdout
    assert re.search(r"^\d+ ok, 0 to look at, 0 broken$", text, re.M)


def test_the_doctor_finds_a_secret_that_others_may_read(fleet):
    key = fleet.controller.dir / "signing.key"
    key.chmod(0o640)
    try:
        found = diagnosed(fleet, 2, "--local", "--config", fleet.controller.config_path)
        check = found["secret", str(key)]
        assert check["grade"] == "fail" and check["remedy"] == f"chmod 600 {key}"
        assert found["config", str(fleet.controller.config_path)]["grade"] == "fail"
    finally:
        key.chmod(0o600)


def test_the_doctor_finds_configs_that_do_not_hold(fleet, tmp_path):
    bad = tmp_path / "worker.yaml"
    bad.write_text(fleet["b"].config_path.read_text().replace("listen:", "lisen:", 1))
    shutil.copy(fleet["b"].config_path, tmp_path / "whole.yaml")
    (tmp_path / "state").symlink_to(fleet["b"].dir / "state")
    done = subprocess.run([BUILD / "bin" / "sallyportctl", "doctor", "--local", "-c", "whole.yaml"],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "secrets" in done.stdout, done.stdout
    found = diagnosed(fleet, 2, "--local", "-c", bad, "-c", tmp_path / "none.yaml")
    assert "lisen" in found["config", str(bad)]["text"]
    assert "No such file" in found["config", str(tmp_path / "none.yaml")]["text"]


def test_the_doctor_finds_certificates_near_their_end(fleet, tmp_path):
    source = fleet.controller.dir
    for name in ("signing", "control", "route"):
        shutil.copy(source / f"{name}.key", tmp_path)
    text = fleet.controller.config_path.read_text().replace(
        "listen: 127.0.0.1:%d" % fleet.controller.endpoint,
        "listen: 127.0.0.1:%d\n  certificate: cert.pem\n  key: tls.key" % fleet.controller.endpoint)
    assert "cert.pem" in text
    (tmp_path / "controller.yaml").write_text(text)
    for days, code, grade in ((100, 0, "ok"), (10, 1, "warn"), (1, 2, "fail")):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-days",
                        str(days), "-keyout", tmp_path / "tls.key", "-out",
                        tmp_path / "cert.pem"], check=True, capture_output=True)
        (tmp_path / "tls.key").chmod(0o600)
        found = diagnosed(fleet, code, "--local", "-c", tmp_path / "controller.yaml")
        assert found["certificate", str(tmp_path / "cert.pem")]["grade"] == grade


def test_the_doctor_finds_a_lost_link_and_a_silent_vantage(well):
    v = next(p for p in well.processes if p.name == "vantage-v2")
    well["c"].stop()
    v.stop()
    try:
        wait_until(lambda: nodes(well, "--link", "lost"), 15 * SLOW, "the link is lost")
        wait_until(lambda: "silent" in well.run("get", "vantages").stdout, 15 * SLOW, "v2 is silent")
        found = diagnosed(well, 1)
        assert "no control link" in found["node", "c/0"]["text"]
        assert "silent" in found["vantage", "v2"]["text"]
        assert found["vantages", ""]["text"] == "1 of 2 vote"
    finally:
        well["c"].start()
        v.start()


def test_the_doctor_finds_a_lease_near_its_end(well):
    well.run("cordon", "b", "--for", "5m")
    found = diagnosed(well, 1)
    assert "its cordon ends in" in found["lease", "b"]["text"]


def test_the_doctor_finds_redis_away_and_emptied(well):
    well.redis.signal(signal.SIGSTOP)
    try:
        found = diagnosed(well, 2)
        check = found["redis", f"unix:{well.redis.socket}"]
        assert check["grade"] == "fail" and "systemctl start redis-server" in check["remedy"]
    finally:
        well.redis.signal(signal.SIGCONT)
    wait_until(lambda: well.json("status")["synced"], 15 * SLOW, "Redis is back")
    well.redis.cli("CONFIG", "SET", "maxmemory", "100mb")
    well.redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "allkeys-lru" in diagnosed(well, 1)["redis", "memory"]["text"]
    well.redis.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_without_a_controller_the_error_says_what_to_start(fleet, tmp_path):
    tool = BUILD / "bin" / "sallyportctl"
    for argv in (["status"], ["get", "nodes"], ["health"], ["drain", "a"], ["revoke", "--user", "alice"]):
        done = subprocess.run([tool, *argv, "--socket", tmp_path / "none.sock"], capture_output=True, text=True)
        assert done.returncode == 69 and "systemctl start sallyport-controller" in done.stderr
    done = subprocess.run([tool, "doctor", "--socket", tmp_path / "none.sock"], capture_output=True, text=True)
    assert done.returncode == 2 and "systemctl start sallyport-controller" in done.stdout
    done = subprocess.run([tool, "doctor", "--local"], capture_output=True, text=True)
    assert done.returncode == 64 and "--config or --socket" in done.stderr
