"""Whoever is not one of ours meets the cover site: the same bytes, headers and close as a
prober gets who asks the bare site."""

import http.server
import random
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import SLOW, curl_sha256
from servers import body_sha256, wait_until

IDLE_S = 2  # the site's own timer


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def date_time_string(self, timestamp=None):
        return "Thu, 01 Jan 1970 00:00:00 GMT"  # two answers are to be the same

    def log_message(self, *_):
        pass

    def answer(self):
        length = self.headers.get("Content-Length", "0")
        asked = self.rfile.read(int(length)) if length.isdigit() else b""
        body = (f"{self.command} {self.path} {len(asked)}\n" * 50).encode()
        if self.path.startswith("/large"):
            body *= 400
        self.send_response(404 if self.path.startswith("/none") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if self.path.endswith("reset"):
            self.wfile.flush()
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = answer


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def shutdown_request(self, request):
        request.close()  # FIN or RST as the handler left it

    def handle_error(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    server = Server(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def covered(lab, site):
    lab.cover_port = site
    return lab.worker(carrier="tls")


def trust(worker):
    context = ssl.create_default_context(cafile=str(worker.dir / "cert.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


class Tls:
    """TLS over a socket by memory BIOs, so that the socket's own end is seen: FIN or RST."""

    def __init__(self, sock, context):
        self.sock, self.context = sock, context
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="exit.example")
        self.do(self.tls.do_handshake)
        assert self.tls.selected_alpn_protocol() == "http/1.1"

    def do(self, call, *args):
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            finally:
                self.flush()

    def flush(self):
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def sendall(self, data):
        self.do(self.tls.write, data)

    def recv(self, n):
        try:
            return self.do(self.tls.read, n)
        except ssl.SSLZeroReturnError:  # close_notify: FIN must follow
            while self.sock.recv(65536):
                pass
            return b""

    def end(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            self.flush()
        self.sock.shutdown(socket.SHUT_WR)


class Plain:
    def __init__(self, sock):
        self.sock, self.sendall, self.recv = sock, sock.sendall, sock.recv

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)


def ask(port, parts, fin, context=None):
    """What comes back to these bytes, and how it ends."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), 20 * SLOW) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            pipe = Tls(sock, context) if context else Plain(sock)
            for part in parts:
                pipe.sendall(part)
            if fin:
                pipe.end()
            while part := pipe.recv(65536):
                got += part
            return bytes(got), "fin"
        except (ConnectionResetError, BrokenPipeError):
            return bytes(got), "rst"


def probe(rng):
    """(parts, fin): what scanners, browsers and noise send."""
    path = rng.choice(["/", "/a", "/none", "/large", "/%2e%2e/x", "/?q=" + "y" * rng.randrange(500)])
    host = rng.choice(["Host: exit.example\r\n", "Host: a\r\nAccept: */*\r\n"])
    kind = rng.randrange(8)
    if kind == 0:
        data = f"GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode()
    elif kind == 1:
        data = f"HEAD {path} HTTP/1.0\r\n\r\n".encode()
    elif kind == 2:
        body = rng.randbytes(rng.randrange(1, 3000))
        head = f"POST {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {len(body)}"
        data = head.encode() + b"\r\n\r\n" + body
    elif kind == 3:  # two requests in a row
        data = f"GET {path} HTTP/1.1\r\n{host}\r\nGET /b HTTP/1.0\r\n\r\n".encode()
    elif kind == 4:
        data = f"BREW {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode()
    elif kind == 5:  # noise, ended so that the site reads it all
        data = rng.randbytes(rng.randrange(1, 2000)).replace(b"\n", b"") + b"\n"
    elif kind == 6:
        data = f"GET {path} HTTP/9.{rng.randrange(99)}\r\n\r\n".encode()
    else:  # a request that never comes to its end
        data = f"GET {path} HTTP/1.1\r\n{host}"[: rng.randrange(1, 30)].encode()
        return [data], True
    if rng.random() < 0.3:
        # To an unknown version the site answers as soon as it has the first line, and closes.
        # What comes behind it would meet FIN or RST as the timing falls: nothing does.
        cut = rng.randrange(1, len(data) - (2 if kind == 6 else 0))
        return [data[:cut], data[cut:]], False
    return [data], False


def test_500_probes_get_what_the_bare_site_gives(covered, site):
    rng = random.Random(20)
    probes = [probe(rng) for _ in range(500)]
    context = trust(covered)
    with ThreadPoolExecutor(16) as pool:
        bare = list(pool.map(lambda p: ask(site, *p), probes))
        ours = list(pool.map(lambda p: ask(covered.port, *p, context), probes))
    for p, b, o in zip(probes, bare, ours):
        assert o == b, f"probe {p}: bare {b[0][:300]!r} {b[1]}, covered {o[0][:300]!r} {o[1]}"
    assert {end for _, end in bare} == {"fin"}
    wait_until(lambda: covered.alive() and covered.fds() < 60, 10 * SLOW, "relays are gone")


def test_a_reset_of_the_site_is_a_reset(covered, site):
    parts = [b"GET /large/reset HTTP/1.1\r\nHost: a\r\n\r\n"]
    assert ask(site, parts, False)[1] == "rst"
    assert ask(covered.port, parts, False, trust(covered))[1] == "rst"


def test_bytes_that_are_not_tls_get_the_sites_answer(covered, site):
    for first in (b"GET / HTTP/1.0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\r\n"):
        assert ask(covered.port, [first], False) == ask(site, [first], False)


def test_the_silent_meet_the_sites_own_timer(covered, site):
    asked = [(site, None), (covered.port, trust(covered)), (covered.port, None)]
    with ThreadPoolExecutor(3) as pool:  # the last: not even a TLS handshake
        ends = list(pool.map(lambda a: ask(a[0], [], False, a[1]), asked))
    assert ends == [(b"", "fin")] * 3


def test_clients_are_served_beside_strangers_on_the_same_port(lab, site, origin):
    lab.cover_port = site
    pair = lab.pair(carrier="tls", client={"wait": False})
    context = trust(pair.worker)
    stop = threading.Event()

    def strangers():
        while not stop.is_set():
            assert ask(pair.worker.port, [b"GET / HTTP/1.0\r\n\r\n"], False, context)[1] == "fin"

    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(strangers) for _ in range(2)]
        try:
            url = f"http://origin.example:{origin.port}/bytes/20000000"
            assert curl_sha256(pair.socks, url) == (20000000, body_sha256(20000000))
        finally:
            stop.set()
        for b in busy:
            b.result()
