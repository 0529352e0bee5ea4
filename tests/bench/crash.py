#!/usr/bin/python3
"""What a crash of the worker's exit costs: `make bench-crash`; table and report.

A worker and a client on loopback, N idle streams; the exit is killed and at that instant
each destination sends a byte. Measured: how long the next exit needed from the end of the
last one until all was taken over (its own log line), and when each byte arrived.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "integration"), str(ROOT / "tests" / "common")]

# pylint: disable=wrong-import-position
import harness
from servers import DnsServer, LoopThread, wait_until

LIMITS = {"opens_per_second": 1000000, "streams_per_session": 20000, "streams": 20000}


def took_over(log):
    rows = re.findall(r'msg="took over" (.*)', log)
    return [{k: int(v) for k, v in (x.split("=") for x in r.split())} for r in rows]


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * q))]


def go_first(*pids):
    """Above all else that runs on the machine; children inherit it."""
    for pid in pids:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def measure(lab, flows, args, report):
    kills = args.kills
    worker = lab.worker(f"worker{flows}", limits=LIMITS, log={"level": "info"})
    client = lab.client(f"client{flows}", [worker], passport={"max_streams": 20000},
                        limits={"connections": 20000, "streams": 20000},
                        log={"level": "info"})
    hold = subprocess.Popen([harness.BUILD / "bench" / "flowhold", "--socks", str(client.socks),
                             "--flows", str(flows)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    assert hold.stdout.readline() == "READY\n", client.log[-2000:]

    def go(pid):
        hold.stdin.write(f"go {pid}\n")
        hold.stdin.flush()
        return json.loads(hold.stdout.readline())

    if args.realtime:
        go_first(worker.pid, client.pid, hold.pid, *harness.children(hold.pid))
    base = [go(0) for _ in range(3)]
    rounds = []
    for i in range(kills):
        arrived = go(wait_until(worker.exit_pid, 10, "an exit"))
        found = wait_until(lambda n=i: (t := took_over(worker.log)) and len(t) > n and t, 30,
                           "another exit")[i]
        assert arrived["missing"] == arrived["reset"] == found["lost"] == 0, (arrived, found)
        assert found["streams"] == flows, found
        found["start_us"] = found["us"] - found["exec_us"] - found["adopt_us"]
        rounds.append({"arrived": arrived, "took_over": found})
        time.sleep(0.3)  # so that the next kill meets idle streams
    hold.stdin.close()
    hold.wait(20)
    client.stop()
    worker.stop()
    row = {"flows": flows, "kills": kills, "bytes_without_kill": base, "rounds": rounds}
    for key in ("us", "exec_us", "start_us", "adopt_us", "cpu_us"):
        values = [r["took_over"][key] / 1000 for r in rounds if key in r["took_over"]]
        if values:
            row[key] = {"p50_ms": quantile(values, 0.5), "p99_ms": quantile(values, 0.99)}
    for key in ("first_ms", "p50_ms", "p99_ms"):
        row[key] = quantile([r["arrived"][key] for r in rounds], 0.5)
    row["worst_p99_ms"] = max(r["arrived"]["p99_ms"] for r in rounds)
    row["base_p99_ms"] = quantile([b["p99_ms"] for b in base], 0.5)
    report.append(row)
    return row


def show(row):
    def part(key):
        return f"{row[key]['p50_ms']:6.1f} /{row[key]['p99_ms']:6.1f}" if key in row else " - "

    print(f"{row['flows']:6} {row['kills']:5}  {part('us'):15} {part('exec_us'):15} "
          f"{part('start_us'):15} {part('adopt_us'):15} {part('cpu_us'):15} {row['first_ms']:6.1f} "
          f"{row['p50_ms']:6.1f} {row['p99_ms']:6.1f} {row['worst_p99_ms']:6.1f}   "
          f"{row['base_p99_ms']:6.1f}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", default="build/release")
    p.add_argument("--out", default="build/bench")
    p.add_argument("--flows", default="1000,15000")
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--realtime", action="store_true",
                   help="with a priority above all else (root), for a machine that is busy")
    args = p.parse_args()
    harness.BUILD = (ROOT / args.build).resolve()
    thread = LoopThread()
    dns = DnsServer(thread, {})
    lab = harness.Lab(thread, dns)
    report, failed = [], True
    print("                taken over, ms p50/p99  of it: exec   process start   adoption         CPU  "
          "        byte, ms: first  p50    p99  worst  no kill: p99")
    try:
        for flows in map(int, args.flows.split(",")):
            show(measure(lab, flows, args, report))
        failed = False
    finally:
        lab.close(failed)
        thread.close()
    out = ROOT / args.out / "crash.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
