"""make playground: the demo's set-up left running, to be tried by hand, until Ctrl-C."""
import os
import select

from place import ADDRESS, ZONE, Place


def advice(place):
    """What to try, with the real ports, pids and paths of this run."""
    fleet, folder = place.fleet, place.folder
    proxy = f"--socks5-hostname 127.0.0.1:{fleet.socks_port}"
    lines = [
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
        "Hurt the carriers of worker a (or b, or ss for shadowsocks) while something runs:",
        f"  echo reset a > {folder}/cutter      RST to both ends",
        f"  echo freeze a > {folder}/cutter     nothing passes any more, silently",
        f"  echo hole a > {folder}/cutter       the same, for new connections too",
        f"  echo thaw a > {folder}/cutter       ends both",
        f"  echo count a > {folder}/cutter      connections, bytes so far",
        "Look:",
        f"  {' '.join(fleet.client_argv('status'))}",
        f"  {' '.join(fleet.client_argv('probe'))}",
    ]
    lines += [f"  curl -s http://127.0.0.1:{n.agent_admin}/metrics      worker {n.name}"
              for n in fleet.nodes.values()]
    lines += [f"  ls {folder}      configs, keys and logs of everything",
              "Kill a worker; new requests go through the other:"]
    lines += [f"  kill -9 {n.proc.pid}      worker {n.name}" for n in fleet.nodes.values()]
    lines += ["and start it again:"]
    return lines + [f"  {' '.join(fleet.worker_argv(name))}" for name in fleet.nodes]


def serve(place):
    """Hands lines written to <folder>/cutter to the cutter, and shows its answers."""
    path = os.path.join(place.folder, "cutter")
    os.mkfifo(path, 0o600)
    fifo = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # a writer of its own: no end of file
    rest = b""
    while True:
        select.select([fifo], [], [])
        *lines, rest = (rest + os.read(fifo, 4096)).split(b"\n")
        for line in lines:
            if line.strip():
                print(f"cutter: {place.cutter.raw(line.decode(errors='replace').strip())}",
                      flush=True)


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
