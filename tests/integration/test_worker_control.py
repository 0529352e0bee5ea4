"""The worker as its operator sees it: files, signals, admin listener, metrics."""

import re
import signal
import socket
import subprocess
import time

import pytest
from harness import BUILD, ROOT, SLOW, curl, curl_sha256, http_get, lint_metrics, parse_metrics, socks_connect
from servers import TcpServer, body_sha256, tcp_echo, wait_until
from signed import SigningKey

WORKER = BUILD / "bin" / "sallyport-worker"


def run(*argv):
    return subprocess.run(
        [str(WORKER), *map(str, argv)], capture_output=True, text=True, timeout=20 * SLOW
    )


def test_help_and_version_answer_on_stdout():
    r = run("--help")
    assert r.returncode == 0 and "--check" in r.stdout and "HUP" in r.stdout
    r = run("--version")
    assert r.returncode == 0 and re.match(r"sallyport-worker \d+\.\d+\.\d+", r.stdout)


def test_the_man_page_and_the_table_of_keys_say_the_same():
    page = (ROOT / "docs" / "man" / "sallyport-worker.8").read_text()
    assert run("--reference").stdout in page


def test_an_unknown_option_is_a_usage_error():
    r = run("--no-such-thing")
    assert r.returncode == 64 and "--help" in r.stderr


def test_init_writes_a_file_that_loads_and_never_overwrites(tmp_path):
    path = tmp_path / "worker.yaml"
    r = run("init", "-c", path)
    assert r.returncode == 0, r.stderr
    text = path.read_text()
    assert "limits:" in text and "#" in text
    assert run("init", "-c", path).returncode != 0
    assert path.read_text() == text
    # complete but for what only the operator knows, which check names
    r = run("--check", "-c", path)
    assert r.returncode == 78 and "listen.tls" in r.stderr


def test_check_accepts_a_good_file_and_dump_shows_what_holds(lab):
    w = lab.worker("w", start=False, limits={"streams_per_session": 77})
    r = run("--check", "-c", w.config_path)
    assert r.returncode == 0, r.stderr
    r = run("--dump-config", "-c", w.config_path)
    assert r.returncode == 0 and re.search(r"streams_per_session: *77", r.stdout)


def broken_number(w):
    w.config["limits"] = {"streams_per_session": "many"}


def broken_name(w):
    w.config["limits"] = {"no_such_limit": 1}


def broken_key(w):
    w.config["keys"]["static"] = "/nonexistent/key"


def broken_mode(w):
    (w.dir / "node.key").chmod(0o644)


def broken_tls(w):
    other = w.dir / "other"
    other.mkdir()
    w.lab.certificate(other)
    w.config["tls"]["key"] = "other/key.pem"


def broken_signature(w):
    path = w.dir / "worker.signed"
    path.write_bytes(path.read_bytes().replace(b"standard", b"premium1"))


def broken_signer(w):
    w.config["keys"]["fleet"] = [SigningKey().text]


def broken_policy(w):
    w.lab.sign_worker_config(w, policy=["allow 300.0.0.0/8"])


@pytest.mark.parametrize(
    "change, says",
    [
        (broken_number, r"worker\.yaml:\d+: .*streams_per_session"),
        (broken_name, r"worker\.yaml:\d+: .*no_such_limit"),
        (broken_key, r"worker\.yaml:\d+: keys\.static.*/nonexistent/key.*sallyportctl"),
        (broken_mode, r"worker\.yaml:\d+: keys\.static.*node\.key"),
        (broken_tls, r"worker\.yaml:\d+: tls\.certificate.*tls\.key.*match"),
        (broken_signature, r"worker\.yaml:\d+: config.*worker\.signed.*signature"),
        (broken_signer, r"worker\.yaml:\d+: config.*worker\.signed.*keys\.fleet"),
        (broken_policy, r"worker\.yaml:\d+: config.*worker\.signed.*300\.0\.0\.0"),
    ],
)
def test_check_names_file_line_key_and_remedy(lab, change, says):
    w = lab.worker("w", start=False, carrier="tls")
    assert run("--check", "-c", w.config_path).returncode == 0
    change(w)
    w.write_config()
    r = run("--check", "-c", w.config_path)
    assert r.returncode == 78
    assert re.search(says, r.stderr, re.S), r.stderr


@pytest.mark.parametrize("key", ["listen.tls", "admin.listen"])
def test_a_port_that_is_taken_is_told_with_its_key_and_remedy(lab, key):
    w = lab.worker("w", start=False, carrier="tls")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        group, name = key.split(".")
        w.config[group][name] = [address] if name == "tls" else address
        w.write_config()
        r = run("-c", w.config_path)
    assert r.returncode == 78
    assert re.search(rf"worker\.yaml:\d+: {key}: {address}: Address already in use; end the program",
                     r.stderr), r.stderr


def test_a_bad_file_on_hup_changes_nothing_and_says_why(lab, servers, origin):
    pair = lab.pair()
    w = pair.worker
    good = w.config_path.read_text()
    w.config_path.write_text(good + "\nno_such_key: 1\n")
    mark = len(w.log)
    w.signal(signal.SIGHUP)
    w.wait_log(r"no_such_key", after=mark)
    url = f"http://127.0.0.1:{origin.port}/bytes/1000"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(1000)
    assert w.metric('sallyport_worker_reloads_total{result="failed"}') == 1
    w.config_path.write_text(good)
    w.signal(signal.SIGHUP)
    wait_until(lambda: w.metric('sallyport_worker_reloads_total{result="ok"}') == 1, 10 * SLOW)


def test_hup_takes_a_new_policy_and_a_new_limit(lab, servers, origin):
    pair = lab.pair()
    w = pair.worker
    url = f"http://127.0.0.1:{origin.port}/bytes/1000"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(1000)
    lab.sign_worker_config(w, seq=2, policy=["deny 127.0.0.0/8"])
    w.signal(signal.SIGHUP)
    wait_until(lambda: w.metric("sallyport_worker_config_seq") == 2, 10 * SLOW, "revision 2")
    assert curl(pair.socks, url)[0] != 0
    assert w.metric('sallyport_worker_policy_refused_total{verdict="rule"}') >= 1
    # an older revision is refused
    lab.sign_worker_config(w, seq=1, policy=["allow 127.0.0.0/8"])
    mark = len(w.log)
    w.signal(signal.SIGHUP)
    w.wait_log(r"older|stale", after=mark)
    assert w.metric("sallyport_worker_config_seq") == 2


def test_a_revoked_pass_ends_its_session_on_hup(lab, servers):
    pair = lab.pair()
    server = TcpServer(servers, tcp_echo)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    lab.sign_worker_config(pair.worker, seq=2, revoked=[pair.client.pass_serial])
    pair.worker.signal(signal.SIGHUP)
    wait_until(lambda: server.live == 0, 10 * SLOW, "the stream's end")
    assert pair.worker.metric('sallyport_worker_sessions_ended_total{reason="revoked"}') == 1


def test_term_stops_accepting_lets_streams_finish_and_exits(lab, servers, origin):
    pair = lab.pair()
    w = pair.worker
    server = TcpServer(servers, tcp_echo)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    assert http_get(w.admin, "/readyz")[0] == 200
    w.signal(signal.SIGTERM)
    wait_until(lambda: http_get(w.admin, "/readyz")[0] == 503, 5 * SLOW, "not ready")
    assert http_get(w.admin, "/livez")[0] == 200
    sock.sendall(b"still")
    assert sock.recv(5) == b"still"
    sock.close()
    assert w.wait(10) == 0


def test_a_second_term_exits_at_once(lab, servers):
    pair = lab.pair()
    server = TcpServer(servers, tcp_echo)
    sock = socks_connect(pair.socks, "127.0.0.1", server.port)
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    pair.worker.signal(signal.SIGTERM)
    wait_until(lambda: http_get(pair.worker.admin, "/readyz")[0] == 503, 5 * SLOW)
    started = time.monotonic()
    pair.worker.signal(signal.SIGTERM)
    pair.worker.wait(3)
    assert time.monotonic() - started < 2 * SLOW


def test_the_service_manager_is_told_of_start_reload_and_end(lab, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10 * SLOW)
        w = lab.worker(start=False)
        w.env.update(NOTIFY_SOCKET=path, WATCHDOG_USEC="200000")
        w.spawn()

        def told(what):
            while True:
                lines = manager.recv(4096).decode().splitlines()
                if what in lines:
                    return lines

        assert "READY=1" in told("READY=1")
        told("WATCHDOG=1")
        w.signal(signal.SIGHUP)
        assert any(x.startswith("MONOTONIC_USEC=") for x in told("RELOADING=1"))
        told("READY=1")
        w.signal(signal.SIGTERM)
        told("STOPPING=1")
        assert w.wait(5) == 0


def test_metrics_are_well_formed_and_count_exactly(pair, origin, servers):
    w = pair.worker
    before = w.metrics()
    n = 3_000_000
    url = f"http://127.0.0.1:{origin.port}/close/{n}"
    assert curl_sha256(pair.socks, url)[1] == body_sha256(n)
    tier = '{tier="standard",direction="to_client"}'
    down = "sallyport_worker_stream_bytes_total" + tier
    wait_until(lambda: w.metrics()[down] - before.get(down, 0) > n, 5 * SLOW)
    after = w.metrics()
    header = after[down] - before.get(down, 0) - n
    assert 0 < header < 200
    assert after["sallyport_worker_streams_opened_total"] == before["sallyport_worker_streams_opened_total"] + 1
    assert after["process_open_fds"] > 0 and after["process_resident_memory_bytes"] > 1e6
    assert any(k.startswith("sallyport_worker_build_info{") for k in after)
    status, text = http_get(w.admin, "/metrics")
    assert status == 200
    lint_metrics(text)
    families = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M)
    assert len(families) == len(set(families)) and len(families) > 30
    assert "alice" not in text, "a user's name in the metrics"
    for name, kind in families:
        assert (kind == "counter") == name.endswith("_total") or kind == "histogram", name


def test_logs_hold_no_destination_and_no_key(pair, origin):
    assert curl(pair.socks, f"http://origin.example:{origin.port}/bytes/10")[0] == 0
    assert "origin.example" not in pair.worker.log
