#!/usr/bin/python3
"""make scale: what the control plane costs and how fast it is, with many simulated workers
(real protocol, real CURVE) and many clients of the config endpoint.

One controller, one redis-server, all on this machine; docs/scale.md says what is measured
and what bounds it here. Progress goes to standard error, the table to standard output, and
everything to build/scale/report.json.
"""
import argparse
import json
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "bench"))
import measure  # noqa: E402
from procs import BenchError, Procs  # noqa: E402

from clients import Clients  # noqa: E402
from fleet import Fleet  # noqa: E402
from workers import Sims, Workers  # noqa: E402

BEGAN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)


def worker_lines(results):
    lines = ["         publish to applied, ms   to acked, ms   controller CPU, us a worker"
             "    all back, s",
             "workers     p50    p99    max       p50    p99   publish  (spread)   1 s idle"
             "    cut  killed"]
    for w in results:
        p, a = w["publish"], w["ack"]
        cpu = p["cpu_us_a_worker"]
        herds = [f"{w[k]['seconds']['median']:>7.2f}" if w[k] else "      -"
                 for k in ("cut", "herd")]
        lines.append(
            f"{w['workers']:>7,} {p['apply_p50_ms']['median']:>7.0f} "
            f"{p['apply_p99_ms']['median']:>6.0f} {p['apply_max_ms']['max']:>6.0f} "
            f"{a.get('p50_ms', 0):>9.0f} {a.get('p99_ms', 0):>6.0f} "
            f"{cpu['median']:>9.1f} {cpu['min']:>5.0f}-{cpu['max']:<4.0f}"
            f"{p['idle_us_a_worker_second']['median']:>10.1f} {' '.join(herds)}")
    return lines


def client_lines(c):
    lines = [f"config endpoint, {c['exits']:,} exits, answers of {c['body_bytes']:,} bytes",
             "         us of CPU  (spread)   nginx   p50 us   p99 us   a second"]
    for name in ("304", "200"):
        o, cpu = c[name]["ours"], c[name]["ours"]["cpu_us"]
        nginx = c[name].get("nginx")
        nginx = f"{nginx['cpu_us']['median']:.1f}" if nginx else "-"
        lines.append(f"{name:>8} {cpu['median']:>10.1f} {cpu['min']:>6.1f}-{cpu['max']:<5.1f}"
                     f"{nginx:>6} "
                     f"{o['p50_us']['median']:>8.0f} {o['p99_us']['median']:>8.0f} "
                     f"{o['a_second']['median']:>10,.0f}")
    w = {k: v["median"] for k, v in c["wake"].items() if k != "polls"}
    return lines + [
        f"{c['wake']['polls']:,} waiting long polls, one change: first {w['first_ms']:.0f} ms, "
        f"median {w['p50_ms']:.0f}, p99 {w['p99_ms']:.0f}, last {w['last_ms']:.0f} (worst "
        f"{c['wake']['last_ms']['max']:.0f}); {w['cpu_us_a_poll']:.0f} us of CPU each"]


def table(report):
    lines = []
    for w in report["workers"]:
        e = w["enrolment"]
        lines.append(f"{w['workers']:,} workers enrolled in {e['seconds']:.1f} s after "
                     f"{e['tokens_s']:.1f} s for their tokens, {e['cpu_us_a_worker']:.0f} us "
                     f"of controller CPU each; linked in {w['connect']['seconds']:.1f} s, "
                     f"{w['connect']['cpu_us_a_worker']:.0f} us")
    if report["workers"]:
        lines += ["", *worker_lines(report["workers"]), ""]
    if "clients" in report:
        lines += [*client_lines(report["clients"]), ""]
    noise = report["noise"]
    return "\n".join(lines + [
        f"{report['seconds']:.0f} s in all; of all cores' time others had "
        f"{100 * noise['foreign_share']:.0f} %, the hypervisor "
        f"{100 * noise['stolen_share']:.0f} %"])


def enrolled(procs, folder, build, n, users=1):
    """A fleet of n workers that have joined, their simulation and what joining took."""
    fleet = Fleet(procs, folder, build)
    fleet.start(users)
    fleet.ready()
    fleet.apply(n)
    before, began = measure.cpu_seconds([fleet.controller.pid]), time.monotonic()
    say(f"enrolling {n:,} workers")
    tokens = fleet.enrol_tokens(n, lambda done: say(f"  {done:,} have a token"))
    tokens_s = time.monotonic() - began
    sims = Sims(procs, build, folder, tokens)
    seconds = sims.enrol(lambda done: say(f"  {done:,} have joined"))
    cpu = measure.cpu_seconds([fleet.controller.pid]) - before
    say(f"  tokens in {tokens_s:.1f} s, joined in {seconds:.1f} s")
    return fleet, sims, {"tokens_s": tokens_s, "seconds": seconds,
                         "cpu_us_a_worker": cpu * 1e6 / n}


def run_workers(procs, folder, build, options, report):
    for n in sorted(int(n) for n in options.workers.split(",")):
        fleet, sims, enrolment = enrolled(procs, f"{folder}-{n}", build, n)
        say(f"{n:,} workers")
        result = Workers(fleet, sims, n, options, say).run()
        report["workers"].append({"enrolment": enrolment, **result})
        for proc in sims.all:
            procs.end(proc)
        fleet.end()


def run_clients(procs, folder, build, options, report):
    fleet, sims, _ = enrolled(procs, folder, build, options.exits, users=100)
    for proc in sims.all:
        procs.end(proc)
    say("clients of the config endpoint")
    report["clients"] = Clients(fleet, procs, build, options, say).run()
    fleet.end()


def show_logs(folder):
    for name in sorted(os.listdir(folder)):
        if os.path.isdir(os.path.join(folder, name)):
            show_logs(os.path.join(folder, name))
        elif name.endswith(".log"):
            with open(os.path.join(folder, name), errors="replace", encoding="utf-8") as f:
                text = f.read()[-1500:]
            say(f"---- {name}\n{text}" if text else f"---- {name}: empty")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--build", required=True, help="build/release")
    parser.add_argument("--only", choices=["workers", "clients"])
    parser.add_argument("--workers", default="100,1000,2000", help="counts, by commas")
    parser.add_argument("--publishes", type=int, default=11, help="for each count")
    parser.add_argument("--herds", type=int, default=3, help="of each kind, for each count")
    parser.add_argument("--exits", type=int, default=200, help="that clients are told of")
    parser.add_argument("--requests", type=int, default=50000, help="of each kind, a round")
    parser.add_argument("--polls", type=int, default=5000, help="that wait")
    parser.add_argument("--rounds", type=int, default=5, help="of clients")
    parser.add_argument("--no-nginx", dest="nginx", action="store_false")
    parser.add_argument("--report", help="file; default: build/scale/report.json")
    return parser.parse_args()


def main():
    options = parse()
    build = os.path.abspath(options.build)
    noise = measure.Noise()
    report = {"options": vars(options), "workers": [], "machine": measure.describe_machine()}
    with tempfile.TemporaryDirectory(prefix="sallyport-scale-") as folder:
        try:
            with Procs(folder) as procs:
                for name, part in (("workers", run_workers), ("clients", run_clients)):
                    if options.only in (None, name):
                        part(procs, os.path.join(folder, name), build, options, report)
        except BenchError as e:
            show_logs(folder)
            say(f"scale: {e}")
            return 1
    report["noise"], report["seconds"] = noise.over(), time.monotonic() - BEGAN
    where = options.report or os.path.join(build, os.pardir, "scale", "report.json")
    os.makedirs(os.path.dirname(os.path.abspath(where)), exist_ok=True)
    with open(where, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
