"""What the programs of a fleet on loopback are given: a config file each, a node's entry in
the fleet file; and the operator's verbs. For tests/integration and tests/demo alike. Not
here: how programs are started, watched and ended."""
import http.client
import json
import os
import socket
import subprocess

KEYS = ("signing", "control", "route")  # of a controller: KIND.key in its folder


def loopback(port):
    return f"127.0.0.1:{port}"


def redis_argv(folder, socket):
    """redis-server on a unix socket, without a port, in memory alone."""
    return ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder),
            "--save", "", "--appendonly", "no", "--daemonize", "no"]


def controller_config(fleet, redis_socket, bus_ports, endpoint, admin):
    """bus_ports: router, publisher, enrol. Keys and api.sock are in the config's folder."""
    return {
        "fleet": fleet, "state_dir": "state",
        "keys": {k: f"{k}.key" for k in KEYS},
        "redis": {"address": f"unix:{redis_socket}"},
        "bus": dict(zip(("router", "publisher", "enrol"), map(loopback, bus_ports))),
        "api": {"socket": "api.sock"},
        "endpoint": {"listen": loopback(endpoint)},
        "admin": {"listen": loopback(admin)}}


def worker_config(node, number, carrier, port, dns, admin, agent_admin):
    return {
        "node": node, "worker": number,
        "listen": {carrier: [loopback(port)]},
        "control": {"folder": "state"},
        "dns": {"servers": [loopback(dns)]},
        "admin": {"listen": loopback(admin)},
        "agent": {"listen": loopback(agent_admin)}}


def vantage_config(admin, interval="1s", deadline="500ms"):
    return {"control": {"folder": "state"},
            "probe": {"interval": interval, "deadline": deadline},
            "admin": {"listen": loopback(admin)}}


def client_config(endpoints, signing_key, socks, admin):
    """A client that asks endpoints, with its token in the file `token` beside its config."""
    return {"socks": {"listen": [loopback(socks)]},
            "keys": {"device": "device.key", "fleet": [signing_key]},
            "endpoints": endpoints, "token": "token", "state_dir": "state",
            "admin": {"listen": loopback(admin)}}


def node_entry(node, number, region, carrier, near, far, **more):
    """`near`: the port that clients dial; `far`: the worker's own. `more`: of the carrier."""
    return {"name": node, "worker": number, "region": region,
            "carriers": [{"kind": carrier, "address": loopback(near), "listen": loopback(far),
                          **more}]}


def endpoint_url(port):
    return f"http://{loopback(port)}/v1/config"


class Operator:
    """sallyportctl with the socket of one controller. A verb that fails raises `error`."""

    def __init__(self, program, api_socket, timeout=30, error=AssertionError):
        self.program, self.socket = str(program), str(api_socket)
        self.timeout, self.error = timeout, error

    def get(self, path):
        """GET of the operator API itself: the answer's object, or OSError."""
        c = http.client.HTTPConnection("controller", timeout=self.timeout)
        with socket.socket(socket.AF_UNIX) as c.sock:
            c.sock.settimeout(self.timeout)
            c.sock.connect(self.socket)
            c.request("GET", path)
            return json.loads(c.getresponse().read())

    def run(self, *argv, check=True):
        done = subprocess.run([self.program, *map(str, argv), "--socket", self.socket],
                              check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=self.timeout)
        if check and done.returncode:
            raise self.error(f"sallyportctl {' '.join(map(str, argv))}: exit "
                             f"{done.returncode}: {done.stdout}{done.stderr}")
        return done

    def json(self, *argv):
        return json.loads(self.run(*argv, "--json").stdout)

    def apply(self, path, *options, check=True):
        return self.run("apply", "-f", path, *options, check=check)

    def enrol_token(self, worker):
        return self.run("enroll", "--node", worker).stdout.split()[-1]

    def vantage_token(self, name, region):
        return self.run("enroll", "--vantage", name, "--region", region).stdout.split()[-1]

    def user_token(self, user):
        out = self.run("token", "make", user).stdout
        return next(word for word in out.split() if word.startswith("spt_"))

    def head(self):
        """(epoch, sequence) of the newest revision."""
        at = self.json("status")["position"]
        return at["epoch"], at["sequence"]


def save_secret(path, text):
    """A file of mode 0600."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as f:
        f.write(text)
