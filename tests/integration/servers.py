"""Servers that the tests put behind an exit, all on loopback and all in one thread with one
asyncio loop: an HTTP origin, raw TCP behaviours, UDP echo, DNS; and a path for carriers that
can be cut, frozen or slowed. Not here: the programs under test (harness.py)."""

import asyncio
import contextlib
import hashlib
import random
import socket
import struct
import threading
import time

IP_PKTINFO = 8  # linux/in.h; the socket module has no name for it
BLOCK = random.Random(20240229).randbytes(1 << 20)


def body(n):
    """The origin's deterministic body of n bytes: each MiB begins with its number."""
    for i in range(0, n, len(BLOCK)):
        part = struct.pack(">Q", i) + BLOCK[8:]
        yield part[: min(len(part), n - i)]


def body_sha256(n):
    h = hashlib.sha256()
    for part in body(n):
        h.update(part)
    return h.hexdigest()


class LoopThread:
    """One asyncio loop in a thread of its own; `call` runs a coroutine there and waits."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def call(self, coro, timeout=30):
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result(timeout)

    def close(self):
        async def cancel():
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for t in tasks:
                t.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        with contextlib.suppress(Exception):
            self.call(cancel(), 5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


def reset(writer):
    """Closes with an RST instead of a FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class TcpServer:
    """Listens on a free port and runs `handle(reader, writer)` for each connection."""

    def __init__(self, thread, handle, host="127.0.0.1", rcvbuf=0, **kw):
        self.thread = thread
        self.handle = handle
        self.host = host
        self.connections = 0
        self.live = 0
        self.errors = []
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.bind((host, 0))
        sock.listen(4096)
        self.port = sock.getsockname()[1]
        self.server = thread.call(self._start(sock, kw))

    async def _start(self, sock, kw):
        return await asyncio.start_server(self._serve, sock=sock, **kw)

    async def _serve(self, reader, writer):
        self.connections += 1
        self.live += 1
        try:
            await self.handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError) as e:
            self.errors.append(type(e).__name__)
        finally:
            self.live -= 1
            writer.close()

    def close(self):
        async def stop():
            self.server.close()

        self.thread.call(stop())


async def _http_body(writer, n, delay=0.0):
    for part in body(n):
        for i in range(0, len(part), 65536):
            writer.write(part[i : i + 65536])
            await writer.drain()
            if delay:
                await asyncio.sleep(delay)


async def http_origin(reader, writer):
    """GET /bytes/N, /slow/N/MS (64 KB each MS), /close/N (no length, ends by FIN), /reset/N
    (RST after N bytes), /hang, /204; POST /sum (length and SHA-256 of what came)."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, v in (x.split(":", 1) for x in lines[1:] if x)}
        part = path.strip("/").split("/")
        if method == "POST":
            h = hashlib.sha256()
            n = left = int(headers.get("content-length", 0))
            if headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            while left:
                data = await reader.read(min(left, 1 << 18))
                if not data:
                    return
                h.update(data)
                left -= len(data)
            answer = f"{n} {h.hexdigest()}\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
            writer.write(answer)
        elif part[0] in ("bytes", "slow"):
            n = int(part[1])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
            await _http_body(writer, n, int(part[2]) / 1000 if part[0] == "slow" else 0.0)
        elif part[0] == "close":
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            await _http_body(writer, int(part[1]))
            return
        elif part[0] == "reset":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            await _http_body(writer, int(part[1]))
            await writer.drain()
            await asyncio.sleep(0.05)  # let what was written leave before the reset
            return reset(writer)
        elif part[0] == "hang":
            await reader.read(-1)
            return
        elif part[0] == "204":
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()


async def tcp_echo(reader, writer):
    """Gives back what comes; half-closes when the peer does."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def tcp_sum(reader, writer):
    """Reads to the end of the peer's direction, then answers length and SHA-256."""
    h, n = hashlib.sha256(), 0
    while data := await reader.read(1 << 18):
        h.update(data)
        n += len(data)
    writer.write(f"{n} {h.hexdigest()}\n".encode())
    await writer.drain()
    writer.write_eof()


async def tcp_fin_first(reader, writer):
    """Says one line, ends its own direction at once, and goes on reading: the number of bytes
    it read is kept in `tcp_fin_first.got` once the peer has ended too."""
    writer.write(b"bye first\n")
    writer.write_eof()
    n = 0
    while data := await reader.read(65536):
        n += len(data)
    tcp_fin_first.got.append(n)


tcp_fin_first.got = []


class Gate:
    """A TCP behaviour that reads nothing (zero window) until `open` is called, then sums."""

    def __init__(self, thread):
        self.thread = thread
        self.event = thread.call(self._make())

    async def _make(self):
        return asyncio.Event()

    def open(self):
        self.thread.loop.call_soon_threadsafe(self.event.set)

    async def __call__(self, reader, writer):
        writer.transport.pause_reading()
        await self.event.wait()
        writer.transport.resume_reading()
        await tcp_sum(reader, writer)


class UdpServer:
    """Answers each datagram with `answer(data, addr)`; None: says nothing."""

    def __init__(self, thread, answer=lambda data, addr: data, host="127.0.0.1"):
        self.thread, self.host, self.answer = thread, host, answer
        self.datagrams = 0
        self.peers = set()
        sock = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.bind((host, 0))
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        self.transport = thread.call(self._start(sock))

    async def _start(self, sock):
        server = self

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                server.datagrams += 1
                server.peers.add(addr)
                answer = server.answer(data, addr)
                if answer is not None:
                    server.transport.sendto(answer, addr)

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
        return transport

    def close(self):
        self.thread.loop.call_soon_threadsafe(self.transport.close)


class UdpEverywhere:
    """Echoes on all loopback addresses at once; answers come from the address that was
    asked, as connected sockets want it."""

    def __init__(self, thread):
        self.thread, self.datagrams = thread, 0
        self.sock = sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind(("0.0.0.0", 0))
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        thread.call(self._start())

    async def _start(self):
        asyncio.get_running_loop().add_reader(self.sock, self._read)

    def _read(self):
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                data, extra, _, peer = self.sock.recvmsg(65536, 256)
                asked = extra[0][2][8:12]
                info = struct.pack("=I4s4s", 0, asked, bytes(4))
                self.sock.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, peer)
                self.datagrams += 1

    def close(self):
        async def stop():
            asyncio.get_running_loop().remove_reader(self.sock)
            self.sock.close()

        self.thread.call(stop())


def dns_query(name, qtype=1, qid=None):
    qid = random.randrange(65536) if qid is None else qid
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.strip(".").split("."))
    return struct.pack(">HHHHHH", qid, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(
        ">HH", qtype, 1
    )


def _dns_question(data):
    labels, i = [], 12
    while data[i]:
        labels.append(data[i + 1 : i + 1 + data[i]].decode("latin-1"))
        i += 1 + data[i]
    qtype = struct.unpack(">H", data[i + 1 : i + 3])[0]
    return ".".join(labels).lower(), qtype, data[12 : i + 5]


class DnsServer(UdpServer):
    """A name server with a table {name: [addresses]} and a TTL; unknown names are NXDOMAIN.
    A name of `mute` gets no answer at all. `asked` counts the questions per name."""

    def __init__(self, thread, table, ttl=60, host="127.0.0.1"):
        self.table, self.ttl = table, ttl
        self.mute = set()
        self.asked = {}
        super().__init__(thread, self._answer, host)

    def _answer(self, data, _addr):
        name, qtype, question = _dns_question(data)
        self.asked[name] = self.asked.get(name, 0) + 1
        if name in self.mute:
            return None
        records = []
        for address in self.table.get(name, []):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            rtype = 28 if ":" in address else 1
            if rtype == qtype:
                raw = socket.inet_pton(family, address)
                records.append(
                    b"\xc0\x0c" + struct.pack(">HHIH", rtype, 1, self.ttl, len(raw)) + raw
                )
        rcode = 0 if name in self.table else 3
        flags = 0x8180 | rcode
        return (
            data[:2]
            + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
            + question
            + b"".join(records)
        )


class Path:
    """A TCP relay between a client and a worker, the place where carriers are hurt.
    `cut()` resets every connection both ways, `freeze()` silently stops passing bytes on the
    connections that live now (later ones pass), `block()` refuses new ones until unblock()."""

    def __init__(self, thread, target):
        self.target = target
        self.pairs = []
        self.total = 0
        self.blocked = False
        self.server = TcpServer(thread, self._serve, limit=1 << 18)
        self.port = self.server.port
        self.thread = thread

    async def _serve(self, reader, writer):
        if self.blocked:
            return reset(writer)
        self.total += 1
        up_reader, up_writer = await asyncio.open_connection(*self.target, limit=1 << 18)
        pair = {"writers": (writer, up_writer), "frozen": False, "bytes": 0}
        self.pairs.append(pair)
        try:
            await asyncio.gather(
                self._pump(pair, reader, up_writer), self._pump(pair, up_reader, writer)
            )
        except (ConnectionError, OSError):
            for w in pair["writers"]:
                reset(w)
        finally:
            self.pairs.remove(pair)
            up_writer.close()

    async def _pump(self, pair, reader, writer):
        while data := await reader.read(1 << 18):
            pair["bytes"] += len(data)
            if pair["frozen"]:
                continue
            writer.write(data)
            await writer.drain()
        if not pair["frozen"]:
            with contextlib.suppress(OSError):
                writer.write_eof()

    @property
    def live(self):
        return len(self.pairs)

    @property
    def bytes(self):
        return sum(p["bytes"] for p in self.pairs)

    def cut(self):
        async def run():
            pairs = list(self.pairs)
            for pair in pairs:
                for writer in pair["writers"]:
                    reset(writer)
            return len(pairs)

        return self.thread.call(run())

    def freeze(self):
        async def run():
            for pair in self.pairs:
                pair["frozen"] = True
            return len(self.pairs)

        return self.thread.call(run())

    def block(self):
        self.blocked = True

    def unblock(self):
        self.blocked = False

    def close(self):
        self.server.close()
        self.cut()


def wait_until(condition, timeout=10.0, what=None, step=0.01):
    """Returns the first true value of `condition()`; fails with `what` after `timeout` s."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition.__name__}")
        time.sleep(step)
