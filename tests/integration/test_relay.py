"""A home that its client cannot reach is reached through another worker: the stream goes on at
the same destination socket, and the worker in between sees ciphertext alone."""

import pytest
from harness import SLOW, recv_exact, socks_connect
from servers import Path, TcpServer, tcp_echo, wait_until


class Place:
    """Two workers that know each other, and a client whose way to each can be cut."""

    def __init__(self, lab, servers, carrier="tcp", client=None, **worker):
        self.lab, self.servers = lab, servers
        self.workers = [lab.worker(n, carrier=carrier, **worker) for n in ("home", "entry")]
        self.home, self.entry = self.workers
        self.introduce(2)
        self.paths = {w.name: Path(servers, ("127.0.0.1", w.port)) for w in self.workers}
        self.client = lab.client("client", self.workers, paths=self.paths, **(client or {}))
        self.socks = self.client.socks
        wait_until(self.warm, 10 * SLOW, "two exits to be warm")

    def introduce(self, seq, members=None):
        import signal

        for w in self.workers:
            self.lab.sign_worker_config(w, seq=seq, members=members or self.workers)
            mark = len(w.log)
            w.signal(signal.SIGHUP)
            w.wait_log(rf"new config in force.*sequence={seq}", after=mark)

    def warm(self):
        return all(x["state"] == "healthy" for x in self.client.status()["exits"][:2])

    def block(self):
        """The home's address, for the client alone."""
        self.paths["home"].block()
        self.paths["home"].cut()

    def unblock(self):
        self.paths["home"].unblock()

    def relayed(self):
        return self.entry.metric('sallyport_worker_relay_carriers{state="relayed"}')


@pytest.fixture
def place(lab, servers):
    return Place(lab, servers)


def say(sock, data):
    sock.settimeout(20 * SLOW)
    sock.sendall(data)
    assert recv_exact(sock, len(data)) == data


def test_a_stream_goes_on_through_another_worker_at_the_same_socket(place, servers):
    ports = []

    async def echo(reader, writer):
        ports.append(writer.get_extra_info("peername")[1])
        await tcp_echo(reader, writer)

    server = TcpServer(servers, echo)
    with socks_connect(place.socks, "127.0.0.1", server.port) as s:
        say(s, b"before")
        place.block()
        say(s, b"through another")
        assert place.relayed() >= 1
        place.unblock()
        say(s, b"after")
    assert len(ports) == 1 and server.connections == 1 and not server.errors
