"""A client that asks config endpoints: what it takes, what it refuses, what it lives on."""

import base64
import http.server
import json
import signal
import threading

import pytest
import yaml
from harness import SLOW, curl, free_port
from servers import TcpServer, tcp_echo, wait_until
from signed import SigningKey, pass_body

TOKEN = "spt_a-token-of-the-tests"


class Endpoint:
    """Serves one signed config with an ETag, and holds answers back as asked."""

    def __init__(self, port=0):
        self.asked, self.body, self.etag, self.status = [], b"", '"0"', 200
        self.changed = threading.Condition()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1/config"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        self.asked.append((request.path, dict(request.headers)))
        with self.changed:
            if request.headers.get("If-None-Match") == self.etag and "wait=" in request.path:
                self.changed.wait(5)
            same = request.headers.get("If-None-Match") == self.etag
            status = 304 if same and self.status == 200 else self.status
            body = self.body if status == 200 else b""
            request.send_response(status)
            request.send_header("ETag", self.etag)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

    def serve(self, body, status=200):
        with self.changed:
            self.body, self.status, self.etag = body, status, f'"{len(self.asked)}-{id(body)}"'
            self.changed.notify_all()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint():
    e = Endpoint()
    yield e
    e.close()


class Polling:
    def __init__(self, lab, workers, *urls):
        self.lab, self.seq = lab, 0
        self.client = lab.client("client", workers, start=False)
        config = self.client.config
        del config["pass"], config["exits"]
        config["endpoints"], config["token"] = list(urls), "token"
        self.client.config_path.write_text(yaml.safe_dump(config))
        token = self.client.dir / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)

    def config(self, workers, signer=None, seq=None, **more):
        """What an endpoint would answer this client."""
        self.seq = seq or self.seq + 1
        blob = self.lab.signer.blob("pass", pass_body(self.client.key.public))
        body = {"format": 1, "revision": {"epoch": 1, "sequence": self.seq}, "refresh_s": 1,
                "pass": base64.b64encode(blob).decode(),
                "exits": [w.exit_entry() for w in workers], **more}
        return (signer or self.lab.signer).json_file("client-config", body)

    def start(self):
        self.client.before = self.client._attached()
        self.client.spawn()
        return self

    def ready(self):
        wait_until(self.client.listening, 10 * SLOW, "its SOCKS port")
        wait_until(self.client.ready, 10 * SLOW, "a session")

    def sequence(self):
        return self.client.status()["revision"]["sequence"]


def test_the_first_start_waits_for_a_config_and_then_serves(lab, origin, endpoint):
    worker = lab.worker("first")
    p = Polling(lab, [worker], endpoint.url)
    endpoint.serve(b"", 503)
    p.start()
    wait_until(lambda: len(endpoint.asked) >= 2, 10 * SLOW, "it asks again")
    endpoint.serve(p.config([worker]))
    p.ready()
    assert curl(p.client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    path, headers = endpoint.asked[0]
    assert path == "/v1/config" and headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["Sallyport-Device"] == p.client.key.public_text
    status = p.client.status()
    assert status["poll"]["state"] == "good" and status["poll"]["endpoint"] == endpoint.url
    assert "config from" in p.client.run("status").stdout
    assert TOKEN not in p.client.log


def test_a_start_that_still_waits_for_a_config_ends_in_order(lab, endpoint):
    p = Polling(lab, [], endpoint.url)
    endpoint.serve(b"", 503)
    check = p.client.run("--check")  # nothing was asked yet, and nothing is wrong with that
    assert check.returncode == 0 and "no endpoint was asked" in check.stdout, check.stderr
    p.start()
    wait_until(lambda: endpoint.asked, 10 * SLOW, "it asks")
    p.client.signal(signal.SIGTERM)
    assert p.client.wait() == 0
    assert "interrupted before an endpoint told the first config" in p.client.log


def test_it_moves_as_soon_as_the_exit_in_use_is_not_offered_any_more(
        lab, servers, origin, endpoint):
    first, second = lab.worker("first"), lab.worker("second")
    p = Polling(lab, [first, second], endpoint.url)
    endpoint.serve(p.config([first, second]))
    p.start().ready()
    wait_until(lambda: p.client.in_use() == "first", 5 * SLOW, "the first in use")
    wait_until(lambda: "wait=" in endpoint.asked[-1][0], 5 * SLOW, "a long poll")
    endpoint.serve(p.config([second]))
    wait_until(lambda: p.client.in_use() == "second", 2 * SLOW, "it moved")
    assert curl(p.client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    endpoint.serve(p.config([first, second]))
    wait_until(lambda: len(p.client.status()["exits"]) == 2, 5 * SLOW, "the first is back")


def test_without_an_endpoint_it_starts_from_the_last_good_config(lab, origin, endpoint):
    worker = lab.worker("first")
    p = Polling(lab, [worker], endpoint.url)
    endpoint.serve(p.config([worker]))
    p.start().ready()
    p.client.stop()
    endpoint.close()
    p.start().ready()
    assert curl(p.client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    wait_until(lambda: p.client.status()["poll"]["state"] == "failing", 10 * SLOW, "it says so")


def test_after_a_failure_the_endpoint_is_asked_without_waiting(lab, endpoint):
    worker = lab.worker("first")
    p = Polling(lab, [worker], endpoint.url)
    endpoint.serve(p.config([worker]))
    p.start().ready()
    wait_until(lambda: "wait=" in endpoint.asked[-1][0], 5 * SLOW, "a long poll")
    body, etag, mark = endpoint.body, endpoint.etag, len(endpoint.asked)
    endpoint.serve(b"", 503)
    wait_until(lambda: p.client.status()["poll"]["state"] == "failing", 10 * SLOW, "it says so")
    with endpoint.changed:
        endpoint.body, endpoint.etag, endpoint.status = body, etag, 200
    wait_until(lambda: p.client.status()["poll"]["state"] == "good", 15 * SLOW, "all is well")
    path, headers = endpoint.asked[mark]
    assert "wait=" not in path and headers["If-None-Match"] == etag
    wait_until(lambda: "wait=" in endpoint.asked[-1][0], 5 * SLOW, "a long poll again")


def test_the_next_url_is_asked_when_one_fails(lab, origin, endpoint):
    worker = lab.worker("first")
    dead = f"http://127.0.0.1:{free_port()}/v1/config"
    p = Polling(lab, [worker], dead, endpoint.url)
    endpoint.serve(p.config([worker]))
    p.start().ready()
    assert p.client.status()["poll"]["endpoint"] == endpoint.url


@pytest.mark.parametrize("what", ["signer", "older", "device", "no pass", "json", "huge", "404"])
def test_what_does_not_hold_is_refused_and_the_old_config_goes_on(lab, origin, endpoint, what):
    worker = lab.worker("first")
    p = Polling(lab, [worker], endpoint.url)
    endpoint.serve(p.config([worker], seq=7))
    p.start().ready()
    other = lab.signer.blob("pass", pass_body(b"\x09" * 32))
    bad = {
        "signer": lambda: p.config([worker], signer=SigningKey()),
        "older": lambda: p.config([worker], seq=6),
        "device": lambda: p.config([worker], **{"pass": base64.b64encode(other).decode()}),
        "no pass": lambda: p.config([worker], **{"pass": ""}),
        "json": lambda: b"sallyport-signed 1 client-config nonsense\n{}",
        "huge": lambda: b"x" * (3 << 20),
        "404": lambda: b"",
    }[what]()
    endpoint.serve(bad, 404 if what == "404" else 200)
    wait_until(lambda: p.client.status()["poll"]["state"] == "failing", 10 * SLOW, "refused")
    assert p.sequence() == 7
    assert curl(p.client.socks, f"http://127.0.0.1:{origin.port}/204")[0] == 0
    endpoint.serve(p.config([worker], seq=8))
    wait_until(lambda: p.sequence() == 8, 20 * SLOW, "it takes the next good one")
    assert p.client.status()["poll"]["state"] == "good"


def test_a_new_pass_reaches_the_session_and_cuts_nothing(lab, servers, endpoint):
    from harness import recv_exact, socks_connect

    worker = lab.worker("first")
    p = Polling(lab, [worker], endpoint.url)
    endpoint.serve(p.config([worker]))
    p.start().ready()
    echo = TcpServer(servers, tcp_echo)
    s = socks_connect(p.client.socks, "127.0.0.1", echo.port)
    renewed = 'sallyport_worker_passes_renewed_total{result="ok"}'
    before = worker.metric(renewed)
    endpoint.serve(p.config([worker]))
    wait_until(lambda: worker.metric(renewed) == before + 1, 5 * SLOW, "the pass")
    s.sendall(b"x")
    assert recv_exact(s, 1) == b"x"


def test_both_ways_at_once_and_neither_are_config_errors(lab, endpoint):
    worker = lab.worker("first")
    p = Polling(lab, [worker], endpoint.url)
    for drop, add, want in [
        ([], {"pass": "p", "exits": "e"}, "endpoints: stands beside pass"),
        (["endpoints", "token"], {}, "pass: missing, and no endpoints"),
        (["token"], {}, "token: missing"),
    ]:
        config = {**p.client.config, **add}
        for key in drop:
            del config[key]
        p.client.config_path.write_text(yaml.safe_dump(config))
        r = p.client.run("--check")
        assert r.returncode == 78 and want in r.stderr, r.stderr
    assert json.dumps(p.client.config)  # unchanged by all of it
