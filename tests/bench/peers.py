"""One class per program under measurement, all with the same small interface.

A peer is a server (whose CPU and memory are the result) and a client beside it that
offers SOCKS5. Each is as Debian ships it: default tuning, logging off, on loopback.
"""
import json
import os
import shutil
import subprocess
import tempfile
import uuid

from procs import BenchError, free_ports, listens, wait_until

RECORD, TAG = 16384, 16


class Context:
    """What peers need of a run: processes, a folder, the origin's ports, the programs."""

    def __init__(self, procs, folder, build, source, origin):
        self.procs, self.folder = procs, folder
        self.build, self.source, self.origin = build, source, origin
        self.cert = os.path.join(folder, "cert.pem")
        self.key = os.path.join(folder, "key.pem")

    def tool(self, name):
        return os.path.join(self.build, "bench", name)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, config):
        with open(self.path(name), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)
        return self.path(name)

    def make_certificate(self):
        """A self-signed P-256 certificate, the cheapest handshake for every TLS peer."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
             "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
             "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout",
             self.key, "-out", self.cert], check=True, capture_output=True)


class Peer:
    """start() and stop() may be called in turn as often as wanted."""

    name = ""
    title = ""
    encrypts = True   # counts for "the best encrypting peer"
    ours = False
    phases = ("bulk", "short", "idle")
    programs = ()     # that have to be installed
    may_fail = 0.0    # share of flows that may fail; more is an error

    def __init__(self, ctx):
        self.ctx = ctx
        self.socks_port = 0
        self.server = self.client = None

    def missing(self):
        """Why this peer cannot run here and is left out, or None."""
        gone = [p for p in self.programs if not shutil.which(p)]
        return f"not installed: {', '.join(gone)}" if gone else None

    def start(self):
        raise NotImplementedError

    def stop(self):
        for proc in (self.client, self.server):
            if proc:
                self.ctx.procs.end(proc)
        self.client = self.server = None

    def server_pids(self):
        return self.ctx.procs.tree(self.server) if self.server else []

    def client_pids(self):
        return self.ctx.procs.tree(self.client) if self.client else []

    def flow_args(self, service, size=0):
        """Arguments that lead the load client to a service of the origin."""
        args = ["--dest", str(self.ctx.origin[service]), "--socks", str(self.socks_port)]
        return args + ["--bytes", str(size)] if service == "bulk" else args

    def can_check(self):
        """Whether the load client gets plain bytes, which it can compare."""
        return True

    def run(self, role, argv):
        return self.ctx.procs.start(f"{self.name}-{role}", argv)

    def wait_ready(self):
        """Waits until one byte comes back from the origin through both programs."""
        def probe():
            for proc in (self.server, self.client):
                if proc and proc.poll() is not None:
                    raise BenchError(f"{proc.name} ended at start: "
                                     f"{self.ctx.procs.log_tail(proc.name)}")
            status, _ = self.ctx.procs.run_json(
                "load", [self.ctx.tool("load"), "bulk"] + self.flow_args("bulk", 1), 30)
            return status == 0
        wait_until(probe, 15, f"{self.name} carries a byte")


class Direct(Peer):
    """The load client straight at the origin: how fast the harness itself is."""

    name, title, encrypts = "harness", "load client and origin alone", False
    phases = ("bulk", "short")

    def start(self):
        pass


class RawLoop(Peer):
    """recv + AES-256-GCM + send, one flow: see rawloop.c."""

    name, title, encrypts = "raw", "recv + AES-256-GCM + send, 16 KB each", False
    phases = ("bulk",)
    records = 1
    port = 0

    def start(self):
        self.server = self.ctx.procs.start(
            f"{self.name}-server", [self.ctx.tool("rawloop"),
                                    str(self.ctx.origin["bulk"]), str(self.records)],
            pipes=True)
        line = self.server.stdout.readline()
        if not line:
            raise BenchError(f"{self.name}: {self.ctx.procs.log_tail(self.server.name)}")
        self.port = json.loads(line)["port"]

    def flow_args(self, service, size=0):
        wire = size + TAG * -(-size // RECORD)
        return ["--dest", str(self.port), "--bytes", str(size), "--expect", str(wire)]

    def can_check(self):
        return False


class RawLoopBatched(RawLoop):
    """The same with 16 records to each recv and send: what batching alone gains."""

    name, title = "raw-16", "the same, 16 records at once"
    records = 16


class Shadowsocks(Peer):
    name, title = "ss-libev", "shadowsocks-libev aes-256-gcm"
    programs = ("ss-server", "ss-local")

    def ports(self):
        """(the server's, the one at which the client finds it, SOCKS5)"""
        server, socks = free_ports(2)
        return server, server, socks

    def start(self):
        server, dial, self.socks_port = self.ports()
        common = {"server": "127.0.0.1", "server_port": server, "password": "bench",
                  "method": "aes-256-gcm", "mode": "tcp_only", "timeout": 600,
                  "no_delay": True}
        local = {"server_port": dial, "local_address": "127.0.0.1",
                 "local_port": self.socks_port}
        self.server = self.run("server", ["ss-server", "-c",
                                          self.ctx.write("ss-server.json", common)])
        self.client = self.run("client", ["ss-local", "-c", self.ctx.write(
            "ss-local.json", common | local)])
        self.wait_ready()


class V2Ray(Peer):
    """Both ends of v2ray; a subclass says protocol and transport."""

    programs = ("v2ray",)
    tls = False

    def inbound(self, user):
        raise NotImplementedError

    def outbound(self, user, port):
        raise NotImplementedError

    def stream(self, at_server):
        if not self.tls:
            return {"network": "tcp"}
        tls = {"certificates": [{"certificateFile": self.ctx.cert,
                                 "keyFile": self.ctx.key}]} if at_server else \
            {"serverName": "localhost", "allowInsecure": True}
        return {"network": "tcp", "security": "tls", "tlsSettings": tls}

    def start(self):
        user = str(uuid.uuid4())
        port, self.socks_port = free_ports(2)
        log = {"loglevel": "error"}
        server = {"log": log, "inbounds": [self.inbound(user) | {
            "listen": "127.0.0.1", "port": port, "streamSettings": self.stream(True)}],
            "outbounds": [{"protocol": "freedom"}]}
        client = {"log": log, "inbounds": [{
            "listen": "127.0.0.1", "port": self.socks_port, "protocol": "socks",
            "settings": {"auth": "noauth", "udp": False}}],
            "outbounds": [self.outbound(user, port) | {
                "streamSettings": self.stream(False)}]}
        for role, config in (("server", server), ("client", client)):
            path = self.ctx.write(f"{self.name}-{role}.json", config)
            setattr(self, role, self.run(role, ["v2ray", "-config", path]))
        self.wait_ready()


class VMess(V2Ray):
    name, title = "vmess", "v2ray VMess aes-128-gcm over tcp"
    # v2ray 4.34 takes about one new flow in a thousand for a replay and lets it hang.
    may_fail = 0.01

    def inbound(self, user):
        return {"protocol": "vmess", "settings": {
            "clients": [{"id": user, "alterId": 0}]}}

    def outbound(self, user, port):
        return {"protocol": "vmess", "settings": {"vnext": [{
            "address": "127.0.0.1", "port": port, "users": [
                {"id": user, "alterId": 0, "security": "aes-128-gcm"}]}]}}


class Vless(V2Ray):
    """Not encrypted, so only for comparison; not in the default set."""

    name, title, encrypts = "vless", "v2ray VLESS, not encrypted", False

    def inbound(self, user):
        return {"protocol": "vless", "settings": {
            "clients": [{"id": user}], "decryption": "none"}}

    def outbound(self, user, port):
        return {"protocol": "vless", "settings": {"vnext": [{
            "address": "127.0.0.1", "port": port, "users": [
                {"id": user, "encryption": "none"}]}]}}


class VlessTls(Vless):
    name, title, encrypts, tls = "vless-tls", "v2ray VLESS + TLS", True, True


class Trojan(Peer):
    name, title = "trojan", "trojan"
    programs = ("trojan",)

    def start(self):
        port, self.socks_port = free_ports(2)
        # remote: where a server sends who is not a trojan client; nobody is, here.
        server = {"run_type": "server", "local_addr": "127.0.0.1", "local_port": port,
                  "remote_addr": "127.0.0.1", "remote_port": self.ctx.origin["short"],
                  "password": ["bench"], "log_level": 4,
                  "ssl": {"cert": self.ctx.cert, "key": self.ctx.key,
                          "session_ticket": True, "reuse_session": True},
                  "tcp": {"no_delay": True}}
        client = {"run_type": "client", "local_addr": "127.0.0.1",
                  "local_port": self.socks_port, "remote_addr": "127.0.0.1",
                  "remote_port": port, "password": ["bench"], "log_level": 4,
                  "ssl": {"verify": False, "verify_hostname": False,
                          "sni": "localhost", "session_ticket": True,
                          "reuse_session": True},
                  "tcp": {"no_delay": True}}
        for role, config in (("server", server), ("client", client)):
            path = self.ctx.write(f"trojan-{role}.json", config)
            setattr(self, role, self.run(role, ["trojan", "-c", path]))
        self.wait_ready()


class Sallyport(Peer):
    """Our worker and client over one carrier; a subclass names the carrier."""

    ours = True
    carrier = ""
    own = ("sallyport-worker", "sallyport", "sallyportctl")

    def missing(self):
        return None  # a program of ours that is not built is an error, not a gap

    def start(self):
        gone = [p for p in self.own if not os.access(self.program(p), os.X_OK)]
        if gone:
            raise BenchError(f"not built: {', '.join(gone)}; run make")
        port, self.socks_port = free_ports(2)
        folder = tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.ctx.folder)
        done = subprocess.run(
            [self.program("sallyportctl"), "quickstart", folder, "--allow", "127.0.0.0/8",
             "--worker", f"127.0.0.1:{port},name=w", "--carrier", self.carrier,
             "--socks", f"127.0.0.1:{self.socks_port}", "--max-streams", "16384",
             # The stated limits of a user are not what is measured here.
             "--worker-set", "limits.opens_per_second=1000000",
             "--worker-set", "limits.streams_per_session=16384",
             "--client-set", "limits.streams=16384",
             "--client-set", "limits.connections=16384"],
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise BenchError(f"quickstart: {done.stderr.strip()}")
        self.server = self.run("server", [self.program("sallyport-worker"), "-c",
                                          os.path.join(folder, "worker-w", "worker.yaml")])
        wait_until(lambda: listens(port), 10, f"{self.name}: the worker listens")
        self.client = self.run("client", [self.program("sallyport"), "-c", os.path.join(
            folder, "client", "client.yaml"), "up"])
        self.wait_ready()

    def program(self, name):
        return os.path.join(self.ctx.build, "bin", name)


class SallyportTcp(Sallyport):
    name, title, carrier = "sallyport-tcp", "Sallyport over tcp", "tcp"


class SallyportTls(Sallyport):
    name, title, carrier = "sallyport-tls", "Sallyport over tls", "tls"


ALL = [Direct, RawLoop, RawLoopBatched, SallyportTcp, SallyportTls, Shadowsocks, VMess,
       VlessTls, Trojan, Vless]
NOT_BY_DEFAULT = {"vless"}
