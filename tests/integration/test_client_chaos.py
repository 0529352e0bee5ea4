"""Streams and datagrams while everything below them is hurt at random for ten seconds: no
byte is lost, doubled or out of order, no stream ends but by its own end, nothing is left."""

import asyncio
import os
import random
import signal
import time

from harness import SLOW, SocksUdp, socks_open
from servers import Path, TcpServer, UdpServer, tcp_echo, wait_until

SECONDS = 10
STREAMS = 16


class Chaos:
    def __init__(self, lab, servers, seed):
        self.end = time.monotonic() + SECONDS
        self.random = random.Random(seed)
        self.seed = seed
        self.echo, self.udp = TcpServer(servers, tcp_echo), UdpServer(servers)
        self.workers = [
            lab.worker(name, carrier=kind, limits={"opens_per_second": 10000})
            for name, kind in (("a", "tcp"), ("b", "tls"), ("c", "tcp"))
        ]
        self.paths = {w.name: Path(servers, ("127.0.0.1", w.port)) for w in self.workers}
        self.client = lab.client(
            "client", self.workers, paths=self.paths, chain={"hold_down": "1s"}
        )
        self.done = self.answers = 0
        self.wrong = []

    async def stream(self, i):
        rnd = random.Random(self.seed * 1000 + i)
        while time.monotonic() < self.end:
            reader, writer = await socks_open(self.client.socks, "127.0.0.1", self.echo.port)
            data = rnd.randbytes(rnd.randrange(1, 1_500_000))

            async def send():
                for at in range(0, len(data), 100_000):
                    writer.write(data[at : at + 100_000])
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            got = await asyncio.wait_for(reader.read(-1), 40 * SLOW)
            await sending
            writer.close()
            if got == data:
                self.done += 1
            else:
                self.wrong.append((i, len(data), len(got)))

    async def datagrams(self):
        def ask():
            udp = SocksUdp(self.client.socks, timeout=1)
            for i in range(20):
                try:
                    self.answers += udp.ask("127.0.0.1", self.udp.port, b"%d" % i) == b"%d" % i
                except TimeoutError:
                    pass  # a datagram may be lost, the flow goes on
            udp.close()

        while time.monotonic() < self.end:
            await asyncio.to_thread(ask)

    async def hurt(self):
        while time.monotonic() < self.end - 2:
            await asyncio.sleep(self.random.random() * 0.6)
            worker = self.random.choice(self.workers)
            path = self.paths[worker.name]
            what = self.random.randrange(10)
            if what < 5:
                await asyncio.to_thread(path.cut)
            elif what < 7:
                await asyncio.to_thread(path.freeze)
            elif what < 9:
                path.block()
                await asyncio.to_thread(path.cut)
                await asyncio.sleep(self.random.random())
                path.unblock()
            else:
                worker.signal(signal.SIGSTOP)
                await asyncio.sleep(self.random.random())
                worker.signal(signal.SIGCONT)

    async def run(self):
        streams = (self.stream(i) for i in range(STREAMS))
        await asyncio.gather(self.hurt(), self.datagrams(), *streams)


def test_nothing_is_lost_while_everything_below_is_hurt_at_random(lab, servers):
    seed = int(os.environ.get("SP_SEED") or random.randrange(1 << 30))
    print(f"SP_SEED={seed}")
    chaos = Chaos(lab, servers, seed)
    asyncio.run(chaos.run())
    assert chaos.wrong == [] and chaos.done > STREAMS and chaos.answers > 0
    client = chaos.client
    wait_until(lambda: client.status()["connections"]["all"] == 0, 10 * SLOW, "an empty house")
    exits = client.status()["exits"]
    assert [x["streams"] for x in exits] == [0, 0, 0]
    assert [x["replay_bytes"] for x in exits] == [0, 0, 0]
    assert [x["homes_lost"] for x in exits] == [0, 0, 0]
    assert sum(x["resumes"] for x in exits) > 0
