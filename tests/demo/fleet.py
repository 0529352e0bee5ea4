"""Two workers and a client, made by `sallyportctl quickstart` as an operator would, with one
difference: the client's config names the cutter's ports, so every carrier passes there."""
import json
import os
import signal
import subprocess

from procs import BenchError, free_ports, listens, wait_until

START_S = 15


class Fleet:
    """paths: {worker's name: (port of the cutter, port of the worker)}"""

    def __init__(self, procs, folder, build, paths):
        self.procs, self.paths, self.bin = procs, paths, os.path.join(build, "bin")
        self.folder = os.path.join(folder, "fleet")
        self.workers, self.client = {}, None
        ports = free_ports(2 + len(paths))
        self.socks_port, self.client_admin = ports[:2]
        self.admin_ports = dict(zip(paths, ports[2:]))

    def program(self, name):
        return os.path.join(self.bin, name)

    def client_argv(self, *command):
        return [self.program("sallyport"), "-c",
                os.path.join(self.folder, "client", "client.yaml"), *command]

    def worker_argv(self, name):
        return [self.program("sallyport-worker"), "-c",
                os.path.join(self.folder, f"worker-{name}", "worker.yaml")]

    def make(self, dns_port, cover_port):
        """Keys, certificates, a pass and signed configs, for this run alone."""
        argv = [self.program("sallyportctl"), "quickstart", self.folder,
                "--allow", "127.0.0.0/8", "--dns", f"127.0.0.1:{dns_port}",
                "--cover", f"127.0.0.1:{cover_port}",
                "--socks", f"127.0.0.1:{self.socks_port}",
                "--client-set", f"admin.listen=127.0.0.1:{self.client_admin}"]
        for name, (near, far) in self.paths.items():
            argv += ["--worker", f"127.0.0.1:{near}@127.0.0.1:{far},name={name},"
                                 f"admin=127.0.0.1:{self.admin_ports[name]}"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        if done.returncode:
            raise BenchError(f"quickstart: exit {done.returncode}: {done.stderr.strip()}")

    def start(self):
        for name in self.paths:
            self.workers[name] = self.procs.start(f"worker-{name}", self.worker_argv(name))
        for name, (_, port) in self.paths.items():
            self._wait(self.workers[name], lambda port=port: listens(port), "listens")
        self.client = self.procs.start("client", self.client_argv("up"))
        self._wait(self.client, self.all_healthy, "has a session with every worker")

    def all_healthy(self):
        exits = (self.status() or {}).get("exits", [])
        return len(exits) == len(self.paths) and all(e["state"] == "healthy" for e in exits)

    def status(self):
        """What the client says of itself, or None."""
        done = subprocess.run(self.client_argv("status", "--json"), check=False,
                              capture_output=True, stdin=subprocess.DEVNULL)
        return None if done.returncode else json.loads(done.stdout)

    def _wait(self, proc, condition, what):
        def check():
            if proc.poll() is not None:
                raise BenchError(f"{proc.name} ended with {proc.returncode}: "
                                 f"{self.procs.log_tail(proc.name)}")
            return condition()
        wait_until(check, START_S, f"{proc.name} {what}")

    def kill(self, name):
        """SIGKILL to all processes of a worker; their pids."""
        pids = self.procs.tree(self.workers[name])
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    def end(self):
        """The client first, so that no worker has to wait for streams when it drains."""
        for proc in [self.client, *self.workers.values()]:
            if proc:
                self.procs.end(proc)
