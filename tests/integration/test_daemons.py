"""What every daemon has: metrics that Prometheus takes, /readyz that is false when it should
be, --check, --help, --version."""

import re
import signal
import subprocess

import pytest
from fleetlab import Controller, FleetLab, Redis, Vantage
from harness import BUILD, SLOW, Lab, curl, free_port, http_get, lint_metrics, parse_metrics, socks_connect
from servers import wait_until

PROGRAMS = ("sallyport", "sallyport-worker", "sallyport-controller", "sallyport-healthcheck")


@pytest.fixture(scope="module")
def fleet(servers, dns, origin):
    place = Lab(servers, dns, origin.port)
    try:
        f = FleetLab(place, users=("alice", "secretuser")).start()
        (f.vantage,) = f.vantages("v1")
        f.person = f.client()
        f.other = f.client("other", "secretuser")
        for c in (f.person, f.other):
            assert curl(c.socks, f"http://127.0.0.1:{origin.port}/bytes/100000")[0] == 0
        wait_until(lambda: f.vantage.metrics()["sallyport_healthcheck_results_reported_total"] > 3,
                   10 * SLOW, "probes")
        wait_until(lambda: sum(u["used_down"] for u in f.json("get", "users")["users"]) > 0,
                   10 * SLOW, "usage is reported")
        yield f
    finally:
        place.close()


def daemons(f):
    return {"controller": f.controller.admin, "worker": f["a"].admin, "agent": f["a"].agent_admin,
            "healthcheck": f.vantage.admin, "client": f.person.admin}


@pytest.mark.parametrize("daemon", ["controller", "worker", "agent", "healthcheck", "client"])
def test_promtool_takes_the_metrics(fleet, daemon):
    status, text = http_get(daemons(fleet)[daemon], "/metrics")
    assert status == 200
    lint_metrics(text)
    assert re.search(r"^sallyport_\w+_build_info\{version=", text, re.M)
    assert "secretuser" not in text and "alice" not in text
    assert "127.0.0.1" not in re.sub(r'carrier="[^"]*"', "", text)  # those of the fleet file


# Subjects, of which each daemon of a running fleet has at least one sample.
SUBJECTS = {
    "controller": """
        peers{kind="worker",state="connected"} bus_published_total acks_total{result="ack"}
        acks_total{result="nack"} nacks_total{about="-"}
        bus_handshakes_total{domain="fleet",result="refused"}
        directory_results_total{call="put",result="stored"}
        directory_results_total{call="adopt",result="adopted"}
        directory_results_total{call="adopt",result="fresh"}
        usage_reports_total usage_spool_bytes usage_spool_sync_failures_total usage_copies_total
        endpoint_configs_total{pass="yes"} endpoint_passes_refused_total{reason="quota"}
        vantage_passes_total{result="issued"} endpoint_answers_total{status="304"}
        endpoint_waiting endpoint_refused_total{cause="token-rate"}
        enrolments_total{result="ok"} probes_total{rung="top"} probes_total{rung="handshake"}
        nodes{state="healthy"} redis_errors_total{kind="late"} redis_command_seconds_count
        journal_errors_total commits_total{result="done"} synced config_epoch config_seq events_total
        """,
    "worker": """
        config_epoch config_seq ready agent_up counters_on_disk sessions{state="attached"}
        sessions_made_total streams_opened_total accepted_total{carrier="tcp"}
        """,
    "agent": """
        controller_up configs_total{result="applied"} configs_total{result="refused"}
        usage_reports_total{result="acknowledged"} directory_calls_total{result="sent"}
        directory_calls_total{result="unanswered"} disk_errors_total usage_segments_waiting
        exit_beat_age_seconds
        """,
    "healthcheck": """
        linked config_epoch config_seq controls_ok targets results_reported_total results_waiting
        pass_expires_timestamp_seconds disk_errors_total
        """,
    "client": """
        polls_total polls_fresh_total exit_changes_total connections_opened_total
        sessions_adopted_total config_age_seconds
        """,
}


@pytest.mark.parametrize("daemon", SUBJECTS)
def test_the_metrics_are_of_all_that_happens(fleet, daemon):
    have = parse_metrics(http_get(daemons(fleet)[daemon], "/metrics")[1])
    missing = [n for n in SUBJECTS[daemon].split() if f"sallyport_{daemon}_{n}" not in have]
    assert not missing, (missing, sorted(have))


def test_what_happened_is_counted(fleet):
    c = fleet.controller.metrics()
    p = "sallyport_controller_"
    assert c[p + 'enrolments_total{result="ok"}'] == 3
    assert c[p + 'acks_total{result="ack"}'] > 0 and c[p + "bus_published_total"] > 0
    assert c[p + 'probes_total{rung="top"}'] > 0
    assert c[p + 'vantage_passes_total{result="issued"}'] >= 1
    assert c[p + 'endpoint_configs_total{pass="yes"}'] >= 2
    assert c[p + 'nodes{state="healthy"}'] == 2
    assert c[p + "redis_command_seconds_count"] > 0 and c[p + "usage_spool_syncs_total"] > 0


# ---- /readyz ----

def readyz(port):
    return http_get(port, "/readyz?verbose")


def test_every_daemon_of_a_fleet_that_runs_is_ready(fleet):
    for daemon, port in daemons(fleet).items():
        assert readyz(port)[0] == 200, daemon


def test_a_controller_without_a_fleet_file_is_not_ready(lab):
    lab.redis = Redis(lab).start()
    c = Controller(lab).start()
    status, text = readyz(c.admin)
    assert status == 503 and "no fleet file was applied yet" in text


def test_a_worker_and_a_vantage_without_a_config_are_not_ready(lab):
    fleet = FleetLab(lab, workers=("a",))
    w, v = fleet["a"], Vantage(fleet, "v")
    assert w.enrol().returncode == 0 and v.enrol().returncode == 0
    fleet.controller.kill()
    w.spawn()
    v.spawn()
    for port, said in ((w.admin, "no config yet"), (w.agent_admin, "no config yet"),
                       (v.admin, "no state of the fleet yet")):
        wait_until(lambda port=port: answers(port), 10 * SLOW, "it listens")
        status, text = readyz(port)
        assert status == 503 and said in text, text
    fleet.controller.start()
    for p in (w.admin, w.agent_admin, v.admin):
        wait_until(lambda p=p: readyz(p)[0] == 200, 15 * SLOW, "it is ready")


def answers(port):
    try:
        return http_get(port, "/livez")[0] == 200
    except OSError:
        return False


def test_a_worker_that_drains_is_not_ready_and_serves_on(lab, origin):
    fleet = FleetLab(lab).start()
    c = fleet.client()
    w = fleet[c.in_use()]
    s = socks_connect(c.socks, "127.0.0.1", origin.port)
    s.sendall(b"GET /close/100000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert s.recv(1000)
    fleet.run("drain", w.node)
    for port in (w.admin, w.agent_admin):
        wait_until(lambda port=port: readyz(port)[0] == 503, 5 * SLOW, "it is not ready")
        assert "draining" in readyz(port)[1]
    fleet.run("undrain", w.node)
    for port in (w.admin, w.agent_admin):
        wait_until(lambda port=port: readyz(port)[0] == 200, 5 * SLOW, "it is ready")
    w.signal(signal.SIGTERM)
    for port in (w.admin, w.agent_admin):
        wait_until(lambda port=port: readyz(port)[0] == 503, 5 * SLOW, "it drains")
    assert s.recv(1000)  # the stream goes on
    s.close()


def test_a_client_whose_exit_is_gone_is_not_ready(lab):
    fleet = FleetLab(lab, workers=("a",)).start()
    c = fleet.client()
    assert readyz(c.admin)[0] == 200
    fleet["a"].kill()
    wait_until(lambda: readyz(c.admin)[0] == 503, 15 * SLOW, "it is not ready")
    assert "the exit in use is not reached" in readyz(c.admin)[1]


def test_a_vantage_that_is_cut_off_is_not_ready(lab, origin):
    fleet = FleetLab(lab, workers=("a",)).start()
    (v,) = fleet.vantages("v", controls=[f"http://127.0.0.1:{origin.port}/204"])
    assert readyz(v.admin)[0] == 200
    v.stop()
    v.config["controls"] = [f"http://127.0.0.1:{free_port()}/"]
    v.write_config()
    v.spawn()
    wait_until(lambda: answers(v.admin) and "cut off" in readyz(v.admin)[1], 15 * SLOW, "it tells")
    assert readyz(v.admin)[0] == 503


# ---- the command line ----

def run(*argv):
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=20 * SLOW)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_version_are_told(program):
    path = BUILD / "bin" / program
    done = run(path, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: " + program) and not done.stderr
    for word in ("--check", "--dump-config", "--version", "exit status"):
        assert word in done.stdout
    done = run(path, "--version")
    assert done.returncode == 0 and re.fullmatch(rf"{program} \d+\.\d+\.\d+\S*\n", done.stdout)
    assert run(path, "--nonsense").returncode == 64


@pytest.mark.parametrize("program", PROGRAMS)
def test_check_takes_what_holds_and_names_the_line_of_what_does_not(fleet, tmp_path, program):
    path = BUILD / "bin" / program
    config = {"sallyport": fleet.person, "sallyport-worker": fleet["a"],
              "sallyport-controller": fleet.controller,
              "sallyport-healthcheck": fleet.vantage}[program].config_path
    done = run(path, "-c", config, "--check")
    assert done.returncode == 0 and "good" in done.stdout and not done.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text("# first\n" + config.read_text().replace("log:", "lgo:"))
    line = 1 + bad.read_text().split("lgo:")[0].count("\n")
    done = run(path, "-c", bad, "--check")
    assert done.returncode == 78 and f"bad.yaml:{line}: lgo" in done.stderr, done.stderr
    done = run(path, "-c", tmp_path / "none.yaml", "--check")
    assert done.returncode == 78 and "none.yaml" in done.stderr
