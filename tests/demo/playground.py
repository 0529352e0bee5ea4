"""make playground: the demo's set-up left running, to be tried by hand, until Ctrl-C."""
import os
import select

from fleet import USER
from place import ADDRESS, ZONE, Place
from procs import BenchError


def advice(place):
    """What to try, with the real ports and paths of this run."""
    fleet = place.fleet
    proxy = f"--socks5-hostname 127.0.0.1:{fleet.socks_port}"
    bearer = '-H "Authorization: Bearer $(cat $P/fleet/client/token)"'
    return [
        "Say this first, in another terminal:",
        f"  P={place.folder}",
        f"  export PATH={fleet.bin}:$PATH SALLYPORT_SOCKET={fleet.operator.socket}",
        f"Download {place.size // 10**6} MB through sallyport, at {place.rate // 10**6} MB/s "
        "and as fast as it goes:",
        f"  curl {proxy} {place.url('file')} | sha256sum",
        f"  curl {proxy} -o /dev/null {place.url(f'quick?{place.size}')}",
        f"  its SHA-256 at the origin: {place.sha256}",
        "The same through shadowsocks-libev:",
        f"  curl --socks5-hostname 127.0.0.1:{place.shadowsocks.socks_port} "
        f"{place.url('file')} | sha256sum",
        f"A look-up through sallyport (answer: {ADDRESS}):",
        f"  dig @127.0.0.1 -p {place.bridge_port} any-name.{ZONE} +short",
        "What the client does, and what it meets on its way to each exit:",
        "  sallyport -c $P/fleet/client/config.yaml status",
        "  sallyport -c $P/fleet/client/config.yaml probe",
        "Hurt the carriers of worker a (b … e; ss for shadowsocks) while something runs:",
        "  echo reset a > $P/do        RST to both ends",
        "  echo freeze a > $P/do       nothing passes any more, silently",
        "  echo hole a > $P/do         the same, for new connections too",
        "  echo block a > $P/do        the same for the client alone: it goes on by a relay",
        "  echo thaw a > $P/do         ends these",
        "Hurt a worker, the controller or redis, and see what the client and the health "
        "checkers make of it:",
        "  echo stop a > $P/do         SIGSTOP: it hangs, its port stays open",
        "  echo continue a > $P/do     SIGCONT",
        "  echo crash a > $P/do        SIGKILL to its exit process: another takes over",
        "  sallyport-worker --upgrade -c $P/fleet/worker-a/config.yaml      to what is now in "
        "$P/fleet/worker-a/sallyport-worker",
        "  echo kill a > $P/do         SIGKILL to all of it; also: kill controller, kill redis",
        "  echo start a > $P/do        again, with what it has on disk",
        "What the operator sees:",
        "  sallyportctl status",
        "  sallyportctl health; sallyportctl doctor",
        "  sallyportctl get nodes      also: users, sessions, vantages, revisions, events, leases",
        f"  curl -s http://127.0.0.1:{fleet.controller_admin}/metrics      the controller's",
        *(f"  curl -s http://127.0.0.1:{n.agent_admin}/metrics      worker {n.name}'s"
          for n in fleet.nodes.values()),
        *(f"  curl -s http://127.0.0.1:{port}/metrics      health checker {name}'s"
          for name, port in fleet.vantage_admin.items()),
        "What the operator does:",
        "  sallyportctl apply --dry-run -f $P/fleet/fleet.yaml      edit it first, then without "
        "--dry-run",
        "  sallyportctl drain a --deadline 30m --wait; sallyportctl undrain a",
        "  sallyportctl rollback SEQUENCE      what that revision declared; get revisions lists "
        "them",
        f"  sallyportctl revoke --user {USER}      and the client is out",
        "What a client asks; the second line waits until the answer changes:",
        f"  curl -si {bearer} {fleet.endpoint}",
        f"  E=$(curl -si {bearer} {fleet.endpoint} | sed -n 's/^etag: *//Ip' | tr -d '\\r')",
        f"  curl -si {bearer} -H \"If-None-Match: $E\" '{fleet.endpoint}?wait=50'",
        "Configs, keys and logs of everything:",
        "  ls $P $P/fleet"]


def obey(place, words):
    """One line that came by the fifo; what to say to it."""
    fleet = place.fleet
    verb, name = (words + [""])[:2]
    node = fleet.nodes.get(name)
    acts = {}
    if node:
        acts = {"stop": fleet.stop_worker, "continue": fleet.continue_worker,
                "kill": fleet.kill, "start": fleet.start_worker, "crash": fleet.kill_exit,
                "block": lambda n: place.cutter(f"hole {n} {fleet.client.pid}")}
    elif name in ("controller", "redis"):
        acts = {"kill": lambda n: fleet.kill_proc(getattr(fleet, n)),
                "start": lambda n: getattr(fleet, f"start_{n}")()}
    if verb not in acts:
        return place.cutter.raw(" ".join(words))
    proc = node.proc if node else getattr(fleet, name)
    if (verb == "start") == (proc.poll() is None):
        return "it runs already" if verb == "start" else "it does not run"
    try:
        acts[verb](name)
    except BenchError as e:
        return str(e)
    place.note_pids()
    return "done"


def serve(place):
    """Obeys lines written to <folder>/do, and says what came of each."""
    path = os.path.join(place.folder, "do")
    os.mkfifo(path, 0o600)
    fifo = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # a writer of its own: no end of file
    rest = b""
    while True:
        select.select([fifo], [], [])
        *lines, rest = (rest + os.read(fifo, 4096)).split(b"\n")
        for line in lines:
            if words := line.decode(errors="replace").split():
                print(f"{' '.join(words)}: {obey(place, words)}", flush=True)


def run(opt, folder):
    """Until Ctrl-C or SIGTERM; 0, or 1 if a process is left."""
    with Place(folder, os.path.abspath(opt.build), opt.bytes, opt.rate, opt.seed) as place:
        print(*advice(place), "", "Ctrl-C ends everything.", sep="\n", flush=True)
        try:
            serve(place)
        except (KeyboardInterrupt, SystemExit):
            pass
    left = place.left_behind()
    print(f"\nended: {len(place.pids)} processes, {len(left)} left behind {left or ''}")
    return 1 if left else 0
