"""The worker is upgraded, with success and without: streams and flows go on, byte for byte."""

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from harness import (BUILD, SLOW, Worker, alone, children, comm, curl, curl_sha256, descendants,
                     free_port, http_get, recv_exact, runs, socks_connect)
from minictl import EnrolledWorker, MiniController
from servers import TcpServer, tcp_echo, wait_until
from test_worker_crash import Run, digest, taken_over, upload

pytestmark = pytest.mark.skipif(alone(), reason="the thread sanitizer wants no keeper")


class Installed(Worker):
    """A worker whose program is a file of its own, which a package manager may replace."""

    def __init__(self, lab, name="worker", start=True, **kw):
        super().__init__(lab, name, start=False, **kw)
        self.program = self.dir / "sallyport-worker"
        self.install(BUILD / "bin" / "sallyport-worker")
        self.command = self.argv[0]
        self.argv[0] = str(self.program)
        if start:
            self.start()

    def install(self, source=None, text=None, mode=0o755):
        """Puts another program there, at once, as package managers do."""
        new = self.dir / "new"
        if text is None:
            shutil.copy(source, new)
        else:
            new.write_text(text)
        new.chmod(mode)
        new.rename(self.program)

    def ask(self, what):
        r = subprocess.run([self.command, f"--{what}", *self.argv[1:]], capture_output=True,
                           text=True, timeout=60 * SLOW)
        return r.returncode, r.stdout + r.stderr

    def upgrades(self, result):
        return self.metric(f'sallyport_worker_upgrades_total{{result="{result}"}}')


class Streams:
    """Streams to an echo that speak now and then; none of them may end."""

    def __init__(self, pair, server, n=20):
        self.socks = [socks_connect(pair.socks, "127.0.0.1", server.port) for _ in range(n)]

    def speak(self):
        for i, s in enumerate(self.socks):
            s.settimeout(20 * SLOW)
            s.sendall(b"%4d" % i)
        for i, s in enumerate(self.socks):
            assert recv_exact(s, 4) == b"%4d" % i

    def close(self):
        for s in self.socks:
            s.close()


class Place:
    """An installed worker, a client, and streams through them."""

    def __init__(self, lab, servers, **config):
        self.worker = Installed(lab, **config)
        self.client = lab.client("client", [self.worker])
        self.socks = self.client.socks
        self.server = TcpServer(servers, tcp_echo)
        self.streams = Streams(self, self.server)
        self.streams.speak()

    def exe(self):
        return os.readlink(f"/proc/{self.worker.exit_pid()}/exe")


@pytest.fixture
def place(lab, servers):
    p = Place(lab, servers)
    yield p
    p.streams.close()


def test_bulk_both_ways_outlives_upgrades(lab, origin, servers):
    pair = lab.pair()
    sink = TcpServer(servers, digest)
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    size = 200_000_000 // SLOW
    want = curl_sha256(pair.socks, f"{url}{size}")[1]
    down = Run(curl_sha256, pair.socks, f"{url}{size}")
    up = Run(upload, pair.socks, sink.port, 64 << 20, 7)
    upgrades = 0
    while (down.alive() or up.alive()) and upgrades < 30:
        status, text = pair.worker.ask("upgrade")
        assert status == 0, text
        assert text.startswith("upgraded: version ")
        upgrades += 1
    assert down.wait() == (size, want)
    got, sent = up.wait()
    assert got == sent
    assert upgrades > 2
    assert all(t["lost"] == 0 for t in taken_over(pair.worker))
    assert pair.worker.metric('sallyport_worker_upgrades_total{result="ok"}') == upgrades
    assert pair.worker.metrics()["sallyport_worker_upgrade_stall_seconds_count"] == upgrades


def test_streams_of_all_kinds_outlive_an_upgrade(lab, servers):
    """Idle ones, half-closed ones either way, and some that are being dialled."""
    pair = lab.pair()
    sink = TcpServer(servers, digest)

    async def speak_then_listen(reader, writer):
        writer.write(b"hello")
        writer.write_eof()
        await reader.read()
        writer.close()

    talk = TcpServer(servers, speak_then_listen)
    busy = socket.create_server(("127.0.0.1", 0), backlog=0)
    fill = socket.create_connection(busy.getsockname())  # its queue is full: no SYN is answered
    dialling = [Run(socks_connect, pair.socks, "127.0.0.1", busy.getsockname()[1])
                for _ in range(3)]
    busy.settimeout(10 * SLOW)
    idle = [socks_connect(pair.socks, "127.0.0.1", sink.port) for _ in range(30)]
    half = [socks_connect(pair.socks, "127.0.0.1", talk.port) for _ in range(10)]
    for s in half:
        assert recv_exact(s, 5) == b"hello" and s.recv(1) == b""
    ended = [socks_connect(pair.socks, "127.0.0.1", sink.port) for _ in range(10)]
    for s in ended:
        s.shutdown(socket.SHUT_WR)
    for s in ended:
        assert recv_exact(s, 32) == hashlib.sha256(b"").digest()
    for _ in range(3):
        status, text = pair.worker.ask("upgrade")
        assert status == 0, text
        assert taken_over(pair.worker)[-1]["lost"] == 0
    for i, s in enumerate(idle):
        s.sendall(b"%d" % i)
        s.shutdown(socket.SHUT_WR)
        assert recv_exact(s, 32) == hashlib.sha256(b"%d" % i).digest()
    for s in half:
        s.sendall(b"bye")
        s.close()
    busy.listen(16)
    accepted = [busy.accept()[0] for _ in range(4)]
    for d in dialling:
        d.wait(20).close()
    for s in [fill, busy, *accepted, *ended]:
        s.close()
    # also what was idle has ended for the destination: nobody holds a copy of its socket
    wait_until(lambda: pair.worker.metric("sallyport_worker_streams") == 0, 10 * SLOW, "the end")
    wait_until(lambda: sink.live == 0 and talk.live == 0, 10 * SLOW, "their ends")


def test_a_crash_after_an_upgrade_runs_the_image_that_ran(place):
    w = place.worker
    old = os.stat(w.program).st_ino
    w.install(BUILD / "bin" / "sallyport-worker")
    assert w.ask("upgrade")[0] == 0
    new = os.stat(w.program).st_ino
    assert old != new
    assert os.stat(f"/proc/{w.exit_pid()}/exe").st_ino == new
    w.install(text="#!/bin/false\n")  # never asked for: not to be run
    before = len(taken_over(w))
    w.kill_exit()
    wait_until(lambda: len(taken_over(w)) > before, 10 * SLOW, "another exit")
    assert os.stat(f"/proc/{w.exit_pid()}/exe").st_ino == new
    place.streams.speak()


def test_hup_takes_what_can_be_taken_in_place_and_runs_a_new_program(place):
    w = place.worker
    exit_pid = w.exit_pid()
    w.signal(signal.SIGHUP)
    w.wait_log("new config in force")
    assert w.exit_pid() == exit_pid
    assert w.ask("reload") == (0, "the new config is in force\n")
    assert w.exit_pid() == exit_pid
    w.install(BUILD / "bin" / "sallyport-worker")
    mark = len(w.log)
    w.signal(signal.SIGHUP)
    w.wait_log(r"msg=upgraded", after=mark)
    assert os.stat(f"/proc/{w.exit_pid()}/exe").st_ino == os.stat(w.program).st_ino
    place.streams.speak()


def test_hups_during_a_reload_make_one_more_when_it_is_refused(place):
    w = place.worker
    begun = w.dir / "begun"
    go_on = w.dir / "go-on"
    w.install(text=f"#!/bin/sh\necho >> {begun}\n"
                   f"while ! [ -e {go_on} ]; do sleep 0.05; done\nexit 3\n")
    w.signal(signal.SIGHUP)
    wait_until(begun.exists, 5 * SLOW, "the check")
    for _ in range(3):
        w.signal(signal.SIGHUP)
        wait_until(lambda: "another one follows" in w.log, 2 * SLOW, "a signal remembered")
    go_on.touch()
    w.wait_log(r"kept the old config(?s:.*)kept the old config")
    assert w.ask("upgrade")[0] == 78  # behind all that was remembered
    assert begun.read_text().count("\n") == 3
    assert w.metric("sallyport_worker_reloads_total{result=\"failed\"}") == 3
    place.streams.speak()


def test_commands_that_say_nothing_hold_no_place_for_long(place):
    w = place.worker
    path = os.path.realpath(w.config_path).encode()
    name = b"\0sallyport-worker/" + hashlib.blake2b(path, digest_size=16).hexdigest().encode()
    with contextlib.ExitStack() as stack:
        asking = []
        for _ in range(9):
            s = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            s.settimeout(20 * SLOW)
            s.connect(name)
            asking.append(s)
        assert asking.pop().recv(1024) == b"75 too many ask at once"
        for s in asking:
            assert s.recv(1024) == b"75 nothing was asked in time"
            assert s.recv(1024) == b""
    assert w.ask("reload")[0] == 0


def test_a_new_listener_and_new_name_servers_come_by_a_reload(place, servers):
    w = place.worker
    port = free_port()
    w.config["listen"]["tcp"].append(f"127.0.0.1:{port}")
    w.config["dns"]["servers"] = ["127.0.0.1:9"]
    w.write_config()
    status, text = w.ask("reload")
    assert status == 0 and text.startswith("upgraded"), text
    socket.create_connection(("127.0.0.1", port), 5).close()
    place.streams.speak()
    w.config["listen"]["tcp"].pop()
    w.write_config()
    assert w.ask("reload")[0] == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    place.streams.speak()


def test_a_listener_that_cannot_be_had_rolls_back(place):
    w = place.worker
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        w.config["listen"]["tcp"].append(f"127.0.0.1:{port}")
        w.write_config()
        status, text = w.ask("reload")
    assert status != 0
    assert f"listen.tcp: 127.0.0.1:{port}: Address already in use" in text
    place.streams.speak()
    w.kill_exit()  # the config in force goes on, whatever the file says
    place.streams.speak()
    assert w.ask("reload")[0] == 0  # now that the address is free
    socket.create_connection(("127.0.0.1", port), 5).close()
    place.streams.speak()


PASSES = "#!/bin/sh\ncase $1 in --check) exit 0;; esac\n"  # its own check, and then


def patched(worker, path):
    """The worker, wanting a library that nobody has."""
    data = worker.program.read_bytes()
    name = next(n for n in (b"libcares.so.2\0", b"libjansson.so.4\0") if n in data)
    path.write_bytes(data.replace(name, name.replace(b"lib", b"lob")))
    path.chmod(0o755)
    return name.replace(b"lib", b"lob")[:-1].decode()


def test_what_fails_its_own_check_stops_nothing(place):
    w = place.worker
    exit_pid = w.exit_pid()
    good = w.program.read_bytes()
    name = patched(w, w.dir / "lacks")
    cases = [
        (dict(source=w.dir / "lacks"), f"error while loading shared libraries: {name}"),
        (dict(text="#!/bin/sh\nexit 3\n"), "status 3"),
        (dict(text="#!/bin/sh\nkill -SEGV $$\n"), "signal 11"),
        (dict(text="#!/bin/sh\nexec sleep 1000\n"), "did not end in 5000 ms"),
        (dict(text="no program at all"), "cannot be executed: Exec format error"),
        (dict(text="", mode=0o644), "cannot be executed: Permission denied"),
    ]
    for installed, why in cases:
        w.install(**installed)
        status, text = w.ask("upgrade")
        assert status == 78 and why in text, (why, text)
        place.streams.speak()
    w.program.unlink()
    status, text = w.ask("upgrade")
    assert status == 78 and "cannot be executed: No such file or directory" in text
    assert w.exit_pid() == exit_pid and not taken_over(w)
    w.program.write_bytes(good)
    w.program.chmod(0o755)
    assert w.ask("upgrade")[0] == 0
    place.streams.speak()


@pytest.mark.parametrize("kind,why", [
    ("lacks", "the new image ended with status 127"),
    ("ends", "the new image ended with status 3"),
    ("sleeps", "the new image did not take over in"),
    ("vanishes", "cannot be executed: No such file or directory"),
    ("crash", "its exit was ended by signal 6"),
    ("hang", "the new image did not take over in"),
])
def test_a_program_that_fails_its_trial_is_rolled_back(place, kind, why):
    w = place.worker
    if kind == "lacks":
        patched(w, w.dir / "lacks")
        w.install(text=f"{PASSES}exec {w.dir}/lacks \"$@\"\n")
    elif kind == "ends":
        w.install(text=f"{PASSES}exit 3\n")
    elif kind == "sleeps":
        w.install(text=f"{PASSES}sleep 1000\n")  # a child of the script, with its descriptors
    elif kind == "vanishes":
        w.install(text=f"#!/bin/sh\nrm {w.program}\n")
    else:
        w.install(BUILD / "tools" / f"worker-{kind}")
    ino = os.stat(f"/proc/{w.exit_pid()}/exe").st_ino
    status, text = w.ask("upgrade")
    assert status == 70, text
    assert why in text and text.startswith("sallyport-worker: rolled back, 20 streams"), text
    assert os.stat(f"/proc/{w.exit_pid()}/exe").st_ino == ino
    place.streams.speak()
    assert taken_over(w)[-1]["lost"] == 0
    assert w.upgrades("rolled-back") == 1 and w.upgrades("ok") == 0
    assert w.metric("sallyport_worker_streams") == 20
    # nobody is left who holds a copy of a destination's socket
    place.streams.close()
    wait_until(lambda: place.server.live == 0, 10 * SLOW, "the ends of the streams")
    w.install(BUILD / "bin" / "sallyport-worker")
    assert w.ask("upgrade")[0] == 0


def trial_of(worker):
    """The pid of the new image's keeper while it is on trial."""
    exits = [p for p in descendants(worker.pid) if comm(p) == "sallyport-exit"]
    return next((k for k in descendants(worker.pid) if exits and exits[0] in children(k)), None)


def test_a_trial_that_is_killed_is_rolled_back(place):
    w = place.worker
    w.install(BUILD / "tools" / "worker-hang")
    asked = Run(w.ask, "upgrade")
    pid = wait_until(lambda: trial_of(w), 5 * SLOW, "a trial")
    os.kill(pid, signal.SIGKILL)
    status, text = asked.wait()
    assert status == 70 and "the new image was ended by signal 9" in text
    place.streams.speak()


@pytest.mark.skipif(SLOW > 1, reason="nothing is preloaded there")
def test_a_trial_that_ends_having_taken_over_unseen_is_not_rolled_back(lab, servers):
    """It is the worker's end, as that of any keeper: the arena is already the new image's."""
    w = Installed(lab, start=False)
    w.may_crash = True
    w.env["LD_PRELOAD"] = str(BUILD / "tools" / "slowwait.so")  # the guard is about to look
    w.start()
    w.install(BUILD / "tools" / "worker-arena-4")
    asked = Run(w.ask, "upgrade")
    w.wait_log(r"msg=upgraded")
    pid = wait_until(lambda: trial_of(w), 5 * SLOW, "the new keeper")
    assert pid != w.pid
    os.kill(pid, signal.SIGKILL)
    assert w.wait(10) == 70
    assert asked.wait()[0] == 0  # so it was
    assert "the old one goes on" not in w.log
    del w.env["LD_PRELOAD"]
    w.start()
    with socket.create_connection(("127.0.0.1", w.port), 5):
        pass


def test_the_guards_end_is_the_workers(place):
    w = place.worker
    w.install(BUILD / "tools" / "worker-hang")
    asked = Run(w.ask, "upgrade")
    trial = wait_until(lambda: trial_of(w), 5 * SLOW, "a trial")
    pids = descendants(w.pid)
    assert trial in pids
    os.kill(w.pid, signal.SIGKILL)
    w.wait(5)
    wait_until(lambda: not any(map(runs, pids)), 5 * SLOW, "the end of all")
    assert asked.wait()[0] == 69
    w.install(BUILD / "bin" / "sallyport-worker")
    w.start()  # its ports are free


def test_term_during_a_trial_ends_the_worker_in_order(place):
    w = place.worker
    w.install(BUILD / "tools" / "worker-hang")
    asked = Run(w.ask, "upgrade")
    wait_until(lambda: trial_of(w), 5 * SLOW, "a trial")
    w.signal(signal.SIGTERM)
    status, text = asked.wait()
    assert status == 70 and "told to end" in text
    w.wait_log("msg=draining")
    place.streams.speak()
    place.streams.close()
    assert w.wait(10) == 0


def test_upgrades_at_the_same_time_come_one_after_the_other(place):
    w = place.worker
    asked = [Run(w.ask, "upgrade") for _ in range(4)]
    answers = [a.wait() for a in asked]
    assert all(status in (0, 75) for status, _ in answers), answers
    done = sum(status == 0 for status, _ in answers)
    assert done >= 1
    assert w.upgrades("ok") == done
    place.streams.speak()


def test_the_process_that_was_started_ends_as_the_worker_does(place):
    w = place.worker
    for _ in range(3):
        assert w.ask("upgrade")[0] == 0
    wait_until(lambda: sum(comm(p) == "sallyport-keep" for p in descendants(w.pid)) == 1,
               5 * SLOW, "the guards' ends")
    pids = descendants(w.pid)
    place.streams.close()
    w.signal(signal.SIGTERM)
    assert w.wait(10) == 0
    wait_until(lambda: not any(map(runs, pids)), 5 * SLOW, "the end of all")


def test_the_end_of_the_process_that_was_started_is_the_workers(place):
    w = place.worker
    for _ in range(2):
        assert w.ask("upgrade")[0] == 0
    pids = descendants(w.pid)
    os.kill(w.pid, signal.SIGKILL)
    w.wait(5)
    wait_until(lambda: not any(map(runs, pids)), 5 * SLOW, "the end of all")


def test_the_service_manager_is_told_of_the_new_main_process(lab, servers, tmp_path):
    path = str(tmp_path / "notify")
    told = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(0.2)
        stop = threading.Event()

        def listen():
            while not stop.is_set():
                try:
                    data, fds, _, _ = socket.recv_fds(manager, 4096, 4)
                except TimeoutError:
                    continue
                told.extend(data.decode().splitlines())
                for fd in fds:
                    os.close(fd)  # a barrier: what came before it is read

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        w = Installed(lab, start=False)
        w.env["NOTIFY_SOCKET"] = path
        w.start()
        client = lab.client("client", [w])
        echo = TcpServer(servers, tcp_echo)
        streams = Streams(client, echo)
        status, text = w.ask("upgrade")
        assert status == 0, text
        w.wait(5)  # the guard has left
        assert w.process.returncode == 0
        line = wait_until(lambda: next((t for t in told if t.startswith("MAINPID=")), None),
                          5 * SLOW, "MAINPID")
        main = int(line.partition("=")[2])
        try:
            assert comm(main) == "sallyport-keep"
            streams.speak()
            status, text = w.ask("upgrade")  # and once more, from there
            assert status == 0, text
            wait_until(lambda: not runs(main), 5 * SLOW, "the second guard's end")
            main = int([t for t in told if t.startswith("MAINPID=")][-1].partition("=")[2])
            streams.speak()
            assert told.count("READY=1") >= 3
        finally:
            below = descendants(main)
            os.kill(main, signal.SIGKILL)
            wait_until(lambda: not any(map(runs, below)), 5 * SLOW, "the end of all")
            stop.set()
            listener.join()
        streams.close()


def test_what_cannot_be_asked_is_said(lab):
    w = Installed(lab, start=False)
    status, text = w.ask("upgrade")
    assert status == 69 and "no worker with the config" in text
    w.argv.append("--no-keeper")
    w.start()
    w.argv.pop()
    status, text = w.ask("upgrade")
    assert status == 78 and "--no-keeper cannot be upgraded" in text
    assert w.ask("reload")[0] == 0
    w.config["node"] = "x" * 100
    w.write_config()
    status, text = w.ask("reload")
    assert status == 78 and "node" in text
    assert http_get(w.admin, "/livez")[0] == 200


def test_arenas_of_the_version_before_and_after_are_taken_over(place, origin):
    """From 3 to 4, back, to 2 and back, under a download; 5 knows 4 and nothing older."""
    w = place.worker
    url = f"http://127.0.0.1:{origin.port}/bytes/"
    size = 400_000_000 // SLOW
    want = curl_sha256(place.socks, f"{url}{size}")[1]
    down = Run(curl_sha256, place.socks, f"{url}{size}")
    main, tools = BUILD / "bin" / "sallyport-worker", BUILD / "tools"
    for program in [tools / "worker-arena-4", main, tools / "worker-arena-2", main]:
        w.install(program)
        mark = len(w.log)
        status, text = w.ask("upgrade")
        assert status == 0, text
        assert "made an arena of this version" in w.log[mark:]
        assert taken_over(w)[-1]["lost"] == 0
        place.streams.speak()
        w.kill_exit()  # and goes on in it
        place.streams.speak()
    w.install(tools / "worker-arena-5")
    status, text = w.ask("upgrade")
    assert status == 70 and "it knows no arena of the version of the running program" in text
    place.streams.speak()
    assert taken_over(w)[-1]["lost"] == 0
    assert down.wait() == (size, want)


def test_a_trial_that_made_an_arena_of_its_own_leaves_nothing_of_it(place):
    w = place.worker

    def arena_bytes():
        for fd in os.listdir(f"/proc/{w.exit_pid()}/fd"):
            path = f"/proc/{w.exit_pid()}/fd/{fd}"
            if "sallyport-arena" in os.readlink(path):
                return os.stat(path).st_size
        return None

    before = arena_bytes()
    with socket.create_server(("127.0.0.1", 0)) as other:  # it fails after that
        w.config["listen"]["tcp"].append(f"127.0.0.1:{other.getsockname()[1]}")
        w.config["limits"] = {"streams": 20000}
        w.write_config()
        status, text = w.ask("reload")
    assert status == 70 and "Address already in use" in text
    assert arena_bytes() == before
    place.streams.speak()


def test_more_streams_and_memory_come_by_a_reload(place):
    w = place.worker
    pool = w.metric("sallyport_worker_memory_pool_bytes")
    w.config["limits"] = {"streams": 22, "memory": "512M"}
    w.write_config()
    status, text = w.ask("reload")
    assert status == 0 and text.startswith("upgraded"), text
    assert w.metric("sallyport_worker_memory_pool_bytes") == 512 << 20 > pool
    place.streams.speak()
    more = [socks_connect(place.socks, "127.0.0.1", place.server.port) for _ in range(2)]
    with pytest.raises(OSError):
        socks_connect(place.socks, "127.0.0.1", place.server.port)
    for s in more:
        s.close()


def started(worker, limit=None, wrapper=()):
    """A start that is refused: (status, what it said)."""
    r = subprocess.run([*wrapper, *worker.argv], capture_output=True, text=True,
                       timeout=30 * SLOW, preexec_fn=limit)
    return r.returncode, r.stderr


@pytest.mark.skipif(SLOW > 1, reason="the sanitizer itself needs these")
def test_a_keeper_says_which_right_it_lacks(lab):
    w = lab.worker(start=False)

    def no_files():  # what is open, and the libraries one by one; no arena beside them
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))

    def no_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    status, said = started(w, no_size)
    assert status == 71 and "files may be 1048576 bytes long (RLIMIT_FSIZE)" in said, said
    assert "LimitFSIZE=infinity" in said
    status, said = started(w, no_files)
    assert status == 71 and "LimitNOFILE= must be higher" in said, said
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    status, said = started(w, wrapper=hide)
    if "unshare failed" not in said:
        assert status == 71 and "/proc/self/status cannot be read" in said, said
        assert "/proc must be mounted" in said


def test_another_home_id_needs_a_restart(place):
    w = place.worker
    w.config["home_id"] = "0f1e2d3c4b5a6978"
    w.write_config()
    status, text = w.ask("reload")
    assert status == 78 and "home_id: another id needs a restart" in text
    place.streams.speak()


def agents(worker):
    """Pids of the agents that run, under whichever exit."""
    found = []
    for pid in descendants(worker.pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                found += [pid] if b"agent" in f.read().split(b"\0") and runs(pid) else []
        except FileNotFoundError:
            continue
    return found


def serves(port):
    try:
        return http_get(port, "/livez")[0] == 200
    except OSError:
        return False


def test_an_enrolled_worker_is_upgraded_with_its_agent(lab, servers, origin):
    ctl = MiniController(lab)
    ctl.found(node__fra1__0={"region": "eu"})
    w = EnrolledWorker(lab, ctl, start=False)
    w.program, command = w.dir / "sallyport-worker", w.argv[0]
    shutil.copy(command, w.program)
    w.argv[0] = str(w.program)
    w.start().wait_ready()
    c = lab.client("client", [w])
    server = TcpServer(servers, tcp_echo)
    streams = Streams(c, server, 5)
    streams.speak()

    def ask(what):
        r = subprocess.run([command, f"--{what}", *w.argv[1:]], capture_output=True, text=True,
                           timeout=60 * SLOW)
        return r.returncode, r.stdout + r.stderr

    url = f"http://127.0.0.1:{origin.port}/bytes/100000"
    for program, want in [(BUILD / "bin" / "sallyport-worker", 0),
                          (BUILD / "tools" / "worker-hang", 70),
                          (BUILD / "bin" / "sallyport-worker", 0)]:
        shutil.copy(program, w.dir / "new")
        (w.dir / "new").rename(w.program)
        status, text = ask("upgrade")
        assert status == want, text
        assert w.ready(), "what the control plane said holds on, before there is an agent"
        assert curl_sha256(c.socks, url)[0] == 100000
        streams.speak()
        wait_until(lambda: len(agents(w)) == 1, 10 * SLOW, "one agent")
        wait_until(lambda: serves(w.agent_admin), 10 * SLOW, "its port")
    mark = ctl.mark()
    ctl.put(tier__standard={}, policy={"rules": ["deny 127.0.0.0/8"]})
    ctl.wait("ack", after=mark)
    wait_until(lambda: curl(c.socks, url)[0] != 0, 10 * SLOW, "the new policy")
    # usage is exact over all of it: what streams carried, both ways
    down = 3 * 100000 + 4 * 5 * 4
    wait_until(lambda: ctl.used("alice")[1] >= down, 20 * SLOW, "usage")
    head = ctl.used("alice")[1] - down
    assert head < 3 * 1000, "more than the heads of three answers"
    streams.close()
    ctl.stop()
