#!/usr/bin/python3
"""make chaos: breaks what the promise names, with the project's own programs, while every
byte of every stream is checked. Live progress, a table of targets beside measured values,
and build/chaos/report.json; exit status 1 if any target or invariant is broken.
docs/chaos.md says what each scenario does."""

import argparse
import ctypes
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", help="none: all of them")
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--seconds", type=float, help="of each scenario; default: its own")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31),
                        help="chooses the events; default: another each time")
    parser.add_argument("--json", type=Path, help="the report; default: "
                        "build/chaos/report.json")
    parser.add_argument("--small", action="store_true", help="the short form, as in `make "
                        "check`: few streams, targets of time are told, not judged")
    parser.add_argument("--keep", action="store_true", help="leave the logs of a scenario "
                        "that failed")
    parser.add_argument("--list", action="store_true", help="the scenarios")
    return parser.parse_args()


def say(text=""):
    print(text, flush=True)


def own_network():
    """All happens in a network namespace of its own, with nothing but loopback in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare: make chaos needs root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def number(value):
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return "none" if value is None else f"{value:,}"


def table(name, told):
    lines = [f"{name}: {'pass' if told['ok'] else 'FAIL'}; {told['seconds']:.0f} s, load "
             f"{told['load'][0]:.1f} to {told['load'][-1]:.1f}"]
    for m in told["measures"]:
        verdict = "" if m["target"] is None else "pass" if m["ok"] else "FAIL"
        target = "" if m["target"] is None else f"{m['sense']} {number(m['target'])}"
        lines.append(f"  {m['what']:52} {number(m['value']):>10} {m['unit']:4} {target:>12} "
                     f"{verdict:4} {m['note']}".rstrip())
    lines += [f"  broken: {text}" for text in told["broken"]]
    return "\n".join(lines)


def run_one(function, args, servers):
    """One scenario in a lab of its own; what its report says."""
    import frame
    from harness import Lab
    thread, dns, origin = servers
    lab = Lab(thread, dns, origin.port)
    run = frame.Run(function.name, lab, args.seed,
                    args.seconds or (function.short if args.small else function.seconds),
                    args.small, frame.Progress(function.name))
    failed = True
    try:
        function(run)
        failed = not run.ok()
    except Exception as e:
        run.claim("the scenario runs to its end", False, f"{type(e).__name__}: {e}")
        run.facts["traceback"] = traceback.format_exc()
    finally:
        run.close()
        if failed and args.keep:
            say(f"{function.name}: its files are in {lab.dir}")
            lab.processes, kept = [], lab.processes
            for p in reversed(kept):
                p.stop(2)
        else:
            try:
                lab.close()
            except AssertionError as e:
                run.claim("no program crashes by itself", False, str(e))
    return run.told()


def main():
    args = arguments()
    os.environ["SP_BUILD"] = str(args.build.resolve())
    sys.path[:0] = [str(ROOT / "tests/common"), str(ROOT / "tests/integration"),
                    str(Path(__file__).parent)]
    import scenes
    from servers import DnsServer, LoopThread, TcpServer, http_origin
    if args.list:
        for name, f in scenes.SCENARIOS.items():
            say(f"{name:10} {f.seconds:4} s  {f.__doc__}")
        return 0
    unknown = [n for n in args.scenario if n not in scenes.SCENARIOS]
    if unknown:
        say(f"no scenario {unknown[0]}; there are: {', '.join(scenes.SCENARIOS)}")
        return 2
    missing = [p for p in ("bin/sallyport-worker", "chaos/app", "chaos/dest", "chaos/epochs",
                           "tools/crashpoint", "tools/linkemu") if not (args.build / p).exists()]
    if missing:
        say(f"{args.build / missing[0]} is not there: `make all chaos-built` builds it")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    own_network()
    random.seed(args.seed)
    version = subprocess.run([args.build / "bin/sallyport-worker", "--version"], text=True,
                             capture_output=True, check=True).stdout.strip()
    report = {"version": version, "seed": args.seed, "small": args.small,
              "kernel": platform.release(), "cpus": os.cpu_count(),
              "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "scenarios": {}}
    say(f"{version}; seed {args.seed}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    thread = LoopThread()
    servers = thread, DnsServer(thread, {}), TcpServer(thread, http_origin, limit=1 << 18)
    status = 0
    try:
        for name in args.scenario or scenes.SCENARIOS:
            if reason := scenes.why_not(scenes.SCENARIOS[name]):
                say(f"{name}: left out, {reason}")
                report["scenarios"][name] = {"left_out": reason}
                continue
            told = run_one(scenes.SCENARIOS[name], args, servers)
            report["scenarios"][name] = told
            say(table(name, told))
            status |= not told["ok"]
    except KeyboardInterrupt:
        say("\ninterrupted")
        status = 130
    finally:
        thread.close()
    report["ok"] = status == 0
    path = args.json or args.build.parent / "chaos" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    say(f"{path}: {'kept' if status == 0 else 'NOT KEPT'}; seed {args.seed}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
