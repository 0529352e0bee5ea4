"""The client as a program: config, commands, signals, probe."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from harness import BUILD, ROOT, SLOW, SocksError, curl, free_port, lint_metrics, parse_metrics, recv_exact, socks_connect
from servers import TcpServer, tcp_echo, wait_until
from signed import SigningKey, pass_body

SALLYPORT = BUILD / "bin" / "sallyport"


def run(*argv):
    return subprocess.run(
        [SALLYPORT, *map(str, argv)], capture_output=True, text=True, timeout=30 * SLOW
    )


def test_help_version_and_usage(tmp_path):
    assert "usage: sallyport" in run("--help").stdout
    version = subprocess.run([BUILD / "bin" / "sallyportctl", "--version"], capture_output=True, text=True)
    assert run("--version").stdout.split() == ["sallyport", version.stdout.split()[1]]
    for wrong in ([], ["fly"], ["--nonsense"], ["up", "down"], ["probe", "--timeout", "x"]):
        assert run("-c", tmp_path / "none", *wrong).returncode == 64, wrong


def test_the_man_page_has_the_reference_of_the_config():
    page = (ROOT / "docs" / "man" / "sallyport.1").read_text()
    assert run("--reference").stdout in page


def test_init_writes_a_config_and_a_private_key_and_keeps_both(tmp_path):
    path = tmp_path / "new" / "sallyport.yaml"
    r = run("init", "-c", path)
    assert r.returncode == 0 and "sallyport-device-public:" in r.stdout
    key = tmp_path / "new" / "device.key"
    assert key.stat().st_mode & 0o777 == 0o600
    again = run("init", "-c", path)
    public = [x for x in r.stdout.split() if x.startswith("sallyport-device-public:")]
    assert public[0] in again.stdout and "kept" in again.stdout
    assert "socks:" in path.read_text() or "socks.listen" in path.read_text()


def test_a_new_config_says_what_is_missing(tmp_path):
    path = tmp_path / "sallyport.yaml"
    run("init", "-c", path)
    r = run("-c", path, "--check")
    assert r.returncode == 78 and str(path) in r.stderr


def test_check_and_dump_agree_with_what_runs(lab):
    client = lab.pair().client
    assert client.run("--check").returncode == 0
    dump = client.run("--dump-config")
    assert dump.returncode == 0
    copy = client.dir / "copy.yaml"
    copy.write_text(dump.stdout)
    assert run("-c", copy, "--check").returncode == 0


def test_wrong_configs_name_file_line_key_and_remedy(lab):
    client = lab.client("client", [lab.worker(start=False)], start=False)
    good = client.config_path.read_text()
    for change, words in (
        ("socks: {listen: ['0.0.0.0:1080']}\n", ["0.0.0.0:1080", "allow_remote"]),
        ("socks: {lisetn: ['127.0.0.1:1']}\n", ["socks.lisetn", "socks.listen"]),
        ("limits: {streams: 0}\n", ["limits.streams"]),
        ("pass: nowhere.pass\n", ["pass", "nowhere.pass"]),
        ("keys: {device: nowhere.key, fleet: [x]}\n", ["keys.device", "sallyport init"]),
    ):
        top = change.split(":")[0]
        kept = []
        skip = False
        for line in good.splitlines(keepends=True):
            if not line.startswith((" ", "-")):
                skip = line.startswith(top + ":")
            if not skip:
                kept.append(line)
        client.config_path.write_text("".join(kept) + change)
        r = client.run("--check")
        assert r.returncode == 78, (change, r.stdout)
        assert re.match(rf"{client.config_path}:\d+: ", r.stderr), (change, r.stderr)
        for word in words:
            assert word in r.stderr, (change, r.stderr)


def test_passes_and_exits_that_are_not_ours_are_refused(lab):
    client = lab.client("client", [lab.worker(start=False)], start=False)
    other, file = SigningKey(), client.dir / "device.pass"
    good = file.read_bytes()
    for blob, words in (
        (other.blob("pass", pass_body(client.key.public)), "not among keys.fleet"),
        (lab.signer.blob("pass", pass_body(os.urandom(32))), "another device key"),
        (lab.signer.blob("pass", pass_body(client.key.public, lifetime=-200)), "expired"),
        (good[:-1] + bytes([good[-1] ^ 1]), "signature"),
        (b"rubbish", "not a pass"),
    ):
        file.write_bytes(blob)
        r = client.run("--check")
        assert r.returncode == 78 and words in r.stderr and "; " in r.stderr, r.stderr
    file.unlink()
    assert "device.pass: No such file or directory; ask" in client.run("--check").stderr
    file.write_bytes(lab.signer.file("pass", pass_body(client.key.public)))
    assert client.run("--check").returncode == 0  # the text form does as well
    client.sign_exits(client.workers, signer=other)
    assert "not among keys.fleet; ask" in client.run("--check").stderr
    exits = client.dir / "exits.signed"
    exits.write_bytes(b"rubbish")
    assert "not a signed client config; the operator" in client.run("--check").stderr
    exits.unlink()
    assert "exits.signed: No such file or directory; ask" in client.run("--check").stderr


def test_status_tells_people_and_programs_the_same(lab, origin):
    client = lab.pair().client
    assert curl(client.socks, f"http://127.0.0.1:{origin.port}/bytes/100000")[0] == 0
    s = client.status()
    x = s["exits"][0]
    assert x["in_use"] and x["state"] == "healthy" and len(x["session"]) == 8
    assert x["traffic"]["bytes_down"] > 100_000 and s["connections"]["opened"] == 1
    text = client.run("status").stdout
    assert x["session"] in text and "* worker" in text
    assert "127.0.0.1:%d" % origin.port not in json.dumps(s)


def test_metrics_count_and_readiness_follows_the_exit(lab, origin):
    from harness import http_get

    pair = lab.pair()
    assert curl(pair.socks, f"http://127.0.0.1:{origin.port}/bytes/100000")[0] == 0
    text = http_get(pair.client.admin, "/metrics")[1]
    lint_metrics(text)
    values = parse_metrics(text)
    assert values['sallyport_client_exit_stream_bytes_down_total{exit="worker"}'] > 100_000
    assert values["sallyport_client_connections_opened_total"] == 1
    pair.worker.kill()
    wait_until(
        lambda: http_get(pair.client.admin, "/readyz")[0] == 503, 5 * SLOW, "not ready"
    )
    assert http_get(pair.client.admin, "/livez")[0] == 200


def test_down_ends_it_in_order_and_the_worker_hears_of_it(lab, servers):
    pair = lab.pair()
    echo = TcpServer(servers, tcp_echo)
    s = socks_connect(pair.socks, "127.0.0.1", echo.port)
    s.sendall(b"x")
    assert recv_exact(s, 1) == b"x"
    assert pair.client.run("down").returncode == 0
    assert pair.client.wait() == 0
    wait_until(lambda: echo.live == 0, 5 * SLOW, "the stream's end at the destination")
    r = pair.client.run("status")
    assert r.returncode == 69 and "not running" in r.stderr


def test_sigterm_and_sigint_end_it_in_order(lab):
    worker = lab.worker()
    for number in (signal.SIGTERM, signal.SIGINT):
        client = lab.client(f"client{number}", [worker])
        client.signal(number)
        assert client.wait() == 0
        assert "stopping" in client.log


def test_a_second_client_with_the_same_state_is_refused(lab):
    client = lab.pair().client
    r = client.run("up")
    assert r.returncode == 69 and "another client" in r.stderr
    assert client.status()["pid"] == client.pid


def test_a_socket_left_by_a_killed_client_is_replaced(lab):
    client = lab.pair().client
    client.kill()
    client.spawn()
    wait_until(client.listening, 5 * SLOW, "its port")
    assert client.status()["pid"] == client.pid


def test_a_reload_takes_new_exits_and_keeps_streams(lab, servers, origin):
    pair = lab.pair()
    second = lab.worker("second")
    echo = TcpServer(servers, tcp_echo)
    with socks_connect(pair.socks, "127.0.0.1", echo.port) as s:
        s.sendall(b"one")
        assert recv_exact(s, 3) == b"one"
        pair.client.sign_exits([second, pair.worker], seq=2)
        assert pair.client.run("reload").returncode == 0
        status = pair.client.status()
        assert status["revision"]["sequence"] == 2
        assert [x["name"] for x in status["exits"]] == ["second", "worker"]
        s.sendall(b"two")
        assert recv_exact(s, 3) == b"two"
    assert pair.client.exit("worker")["attaches"] == 1  # the same session and carrier
    pair.client.sign_exits([second], seq=3)
    mark = len(pair.client.log)
    pair.client.signal(signal.SIGHUP)
    pair.client.wait_log("config reloaded", after=mark)
    assert len(pair.client.status()["exits"]) == 1
    assert curl(pair.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0


def test_a_reload_with_a_mistake_keeps_the_old_config_and_says_why(lab, origin):
    pair = lab.pair()
    client = pair.client
    good = client.config_path.read_text()
    client.config_path.write_text(good + "nonsense: 1\n")
    mark = len(client.log)
    client.signal(signal.SIGHUP)
    client.wait_log("not reloaded.*nonsense", after=mark)
    client.config_path.write_text(good)
    (client.dir / "device.pass").write_bytes(b"rubbish")
    mark = len(client.log)
    client.signal(signal.SIGHUP)
    client.wait_log("not reloaded.*pass", after=mark)
    r = client.run("reload")
    assert r.returncode == 78 and "not a pass" in r.stderr
    assert curl(pair.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    assert client.status()["reloads_failed"] == 3


def test_an_older_revision_than_the_one_held_is_refused(lab):
    pair = lab.pair()
    client = pair.client
    client.sign_exits([pair.worker], epoch=2, seq=1)
    assert client.run("reload").returncode == 0
    client.sign_exits([pair.worker], epoch=1, seq=99)
    r = client.run("reload")
    assert r.returncode == 78 and "older" in r.stderr
    client.stop()
    r = client.run("up")
    assert r.returncode == 78 and "older" in r.stderr


def test_a_renewed_pass_reaches_live_sessions(lab):
    pair = lab.pair()
    body = pass_body(pair.client.key.public, lifetime=7200, tier="standard")
    (pair.client.dir / "device.pass").write_bytes(lab.signer.blob("pass", body))
    assert pair.client.run("reload").returncode == 0
    wait_until(
        lambda: pair.worker.metric('sallyport_worker_passes_renewed_total{result="ok"}') == 1,
        5 * SLOW,
        "the worker to take the pass",
    )


def test_a_probe_climbs_to_the_top_and_names_what_it_fell_from(lab, origin):
    worker = lab.worker()
    gone = lab.worker("gone", start=False)
    client = lab.client("client", [worker, gone], start=False)
    target = f"127.0.0.1:{origin.port}/204"
    r = client.run("probe", "worker", "--target", target, "--expect", "204")
    assert r.returncode == 0 and "HTTP 204" in r.stdout, r.stdout
    for argv, rung, reason in (
        (["gone"], "connect", "refused"),
        (["worker", "--target", f"127.0.0.1:{free_port()}"], "stream", "refused"),
        (["worker", "--target", "10.255.0.1:80"], "stream", "policy"),
        (["worker", "--target", target, "--expect", "200"], "http", "refused"),
    ):
        r = client.run("probe", "--json", *argv)
        (x,) = json.loads(r.stdout)
        assert r.returncode == 1 and (x["fell_from"], x["reason"]) == (rung, reason), x
    assert client.run("probe", "nobody").returncode == 64
    key = worker.key
    worker.key = gone.key  # the client is told another key than the worker has
    client.sign_exits([worker], seq=2)
    worker.key = key
    r = client.run("probe", "--json", "--timeout", "1")
    assert json.loads(r.stdout)[0]["fell_from"] == "handshake"


def test_a_probe_of_a_worker_that_refuses_this_device_falls_from_the_session(lab):
    worker = lab.worker()
    client = lab.client("client", [worker], start=False, passport={"tier": "unheard-of"})
    r = client.run("probe", "--json")
    (x,) = json.loads(r.stdout)
    assert x["fell_from"] == "session" and "handshake" in x["ms"]


def test_a_probe_over_tls_has_its_own_rung(lab):
    worker = lab.worker(carrier="tls")
    client = lab.client("client", [worker], start=False)
    r = client.run("probe", "--json")
    (x,) = json.loads(r.stdout)
    assert x["ok"] and x["carrier"] == "tls" and x["ms"]["carrier"] > 0
    lab.certificate(worker.dir)  # now the client trusts a certificate the worker has not
    r = client.run("probe", "--json")
    (x,) = json.loads(r.stdout)
    assert x["fell_from"] == "carrier" and x["reason"] == "tls"


def test_when_every_exit_refuses_this_device_applications_are_told_at_once(lab):
    worker = lab.worker()
    client = lab.client("client", [worker], wait=False, passport={"tier": "unheard-of"})
    client.wait_log("dial failed.*exit=worker")
    start = time.monotonic()
    with pytest.raises(SocksError):
        socks_connect(client.socks, "127.0.0.1", 80)
    assert time.monotonic() - start < 2 * SLOW
    assert client.exit("worker")["last_down"] not in ("none", "internal")
    assert sum(client.status()["connections"]["failed"].values()) == 1
