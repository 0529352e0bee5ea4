#!/usr/bin/python3
"""make bench: what a byte, a flow and an idle stream cost a worker, beside its peers.

Rounds are interleaved over the peers. docs/bench.md says what is counted and how.
"""
import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time

import measure
import peers
import report
from procs import BenchError, Procs

GB, MB = 1e9, 1e6
LOAD_LIMIT_S = 120
WARM_BYTES = 32 * 1000 * 1000


def say(text):
    print(text, file=sys.stderr, flush=True)


def per(amount, count):
    return None if amount is None else amount / count


class Run:
    """One run: the origin, the load client, and the three measurements."""

    def __init__(self, ctx, options):
        self.ctx, self.opt = ctx, options

    def load(self, peer, mode, args):
        """The load client's result; the flows have to have done what they should."""
        _, out = self.ctx.procs.run_json(
            "load", [self.ctx.tool("load"), mode] + args, LOAD_LIMIT_S)
        self.judge(peer, mode, out["done"], out)
        return out

    @staticmethod
    def judge(peer, mode, done, out):
        bad = out["failed"] + out.get("lost", 0)
        if not done or bad > peer.may_fail * (done + bad):
            raise BenchError(f"{mode}: {bad} of {done + bad} flows failed: {out['why']}")

    @contextlib.contextmanager
    def counted(self, peer):
        """CPU seconds of both sides over the block, once they have come to rest."""
        sides = {"server": peer.server_pids(), "client": peer.client_pids()}
        before = {s: measure.cpu_seconds(p) for s, p in sides.items()}
        result = {s: None for s in sides}
        yield result
        for side, pids in sides.items():
            if not pids:
                continue
            end = measure.settled(lambda p=pids: measure.cpu_seconds(p), 0.002, 1.0, 0.05)
            result[side] = end - before[side]
        if set(peer.server_pids()) != set(sides["server"]):
            raise BenchError("the server's processes changed while being measured")

    def bulk(self, peer):
        size = self.opt.size
        args = peer.flow_args("bulk", WARM_BYTES)
        self.load(peer, "bulk", args + (["--check"] if peer.can_check() else []))
        with self.counted(peer) as cpu:
            out = self.load(peer, "bulk", peer.flow_args("bulk", size))
        return {"server_s_per_gb": per(cpu["server"], size / GB),
                "client_s_per_gb": per(cpu["client"], size / GB),
                "mb_per_s": size / MB / out["transfer_seconds"],
                "first_byte_ms": out["first_byte_ms"]}

    def short(self, peer):
        args = peer.flow_args("short") + ["--concurrency", "16", "--patience-ms", "3000"]
        self.load(peer, "short", args + ["--flows", "100"])
        with self.counted(peer) as cpu:
            out = self.load(peer, "short", args + ["--flows", str(self.opt.flows), "--max-ms",
                                             str(self.opt.short_ms)])
        return {"server_us_per_flow": per(cpu["server"], out["done"] / 1e6),
                "client_us_per_flow": per(cpu["client"], out["done"] / 1e6),
                "flows": out["done"], "failed": out["failed"], "flows_per_s": out["done"] / out["seconds"],
                "p50_ms": out["p50_ms"], "p99_ms": out["p99_ms"]}

    def idle(self, peer):
        """On a fresh server: one stream warms it, then what the others add."""
        self.load(peer, "short", peer.flow_args("short") + ["--flows", "1"])
        pids = peer.server_pids()
        def pss():
            return measure.memory_bytes(pids)[0]
        measure.settled(pss, 64 << 10)
        before = measure.memory_bytes(pids)
        holder = self.ctx.procs.start(
            "load-idle", [self.ctx.tool("load"), "idle"] + peer.flow_args("idle") +
            ["--flows", str(self.opt.idle), "--concurrency", "64", "--patience-ms",
             "3000"], pipes=True)
        try:
            line = holder.stdout.readline().decode()
            if not line.startswith("READY"):
                raise BenchError("idle: the load client ended: " +
                                 self.ctx.procs.log_tail("load-idle"))
            state = json.loads(line.partition(" ")[2])
            self.judge(peer, "idle", state["held"], state)
            measure.settled(pss, 64 << 10)
            after = measure.memory_bytes(pids)
            out, _ = holder.communicate(timeout=30)
            self.judge(peer, "idle", state["held"], json.loads(out))
        finally:
            self.ctx.procs.end(holder)
        count = state["held"]
        return {"server_kb_per_stream": (after[0] - before[0]) / 1024 / count,
                "rss_kb_per_stream": (after[1] - before[1]) / 1024 / count,
                "server_base_kb": before[0] / 1024, "streams": count,
                "failed": state["failed"]}

    def measure_peer(self, peer, phases):
        """All phases of one round; a fresh server for `idle`. Yields (phase, result)."""
        groups = [[p for p in phases if p != "idle"], [p for p in phases if p == "idle"]]
        for group in groups:
            if not group:
                continue
            try:
                peer.start()
                for phase in group:
                    yield phase, getattr(self, phase)(peer)
            finally:
                peer.stop()


def brief(phase, r):
    if phase == "bulk":
        return f"{r['server_s_per_gb'] or 0:.2f} s/GB, {r['mb_per_s']:.0f} MB/s"
    if phase == "short":
        return f"{r['server_us_per_flow'] or 0:.0f} us a flow, " \
               f"{r['flows_per_s']:.0f} a second"
    return f"{r['server_kb_per_stream']:.1f} KB a stream"


def one_round(run, chosen, number, data):
    """Every peer once, in an order that turns by one each round."""
    turn = number % len(chosen)
    for peer in chosen[turn:] + chosen[:turn]:
        entry = data["peers"][peer.name]
        phases = [p for p in peer.phases
                  if p in run.opt.phases and (p != "idle" or number < run.opt.idle_rounds)]
        if entry["error"] or not phases:
            continue
        try:
            for phase, result in run.measure_peer(peer, phases):
                entry["rounds"][phase].append({"round": number, **result})
                say(f"  round {number + 1} {peer.name:14} {brief(phase, result)}")
        except (BenchError, OSError, ValueError) as e:
            entry["error"] = f"{type(e).__name__}: {e}"
            say(f"  round {number + 1} {peer.name:14} FAILED: {e}")


def all_rounds(run, chosen, data):
    """Rounds until --rounds, or until the next one would not fit into --budget."""
    began, longest = time.monotonic(), 0.0
    for number in range(run.opt.rounds):
        spent = time.monotonic() - began
        if number and spent + longest > run.opt.budget:
            say(f"bench: stopping after {number} rounds: {spent:.0f} s of "
                f"{run.opt.budget} s are spent")
            break
        one_round(run, chosen, number, data)
        data["rounds_done"] = number + 1
        longest = max(longest, time.monotonic() - began - spent)
    data["seconds"] = time.monotonic() - began


def choose(ctx, only, data):
    """The peers of this run; what is left out, with the reason, goes into data."""
    chosen = []
    for cls in peers.ALL:
        if (only and cls.name not in only) or \
           (not only and cls.name in peers.NOT_BY_DEFAULT):
            continue
        peer = cls(ctx)
        entry = {"title": cls.title, "encrypts": cls.encrypts, "ours": cls.ours,
                 "error": None, "rounds": {"bulk": [], "short": [], "idle": []}}
        reason = peer.missing()
        if reason:
            data["skipped"][cls.name] = reason
            say(f"bench: {cls.name} is left out: {reason}")
            continue
        data["peers"][cls.name] = entry
        chosen.append(peer)
    return chosen


def parse_args():
    names = [c.name for c in peers.ALL]
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", default="build/release", help="where the programs are")
    p.add_argument("--out", default="build/bench", help="folder of report.json")
    p.add_argument("--quick", action="store_true", help="one short round, about a minute")
    p.add_argument("--rounds", type=int, help="rounds over all peers (5)")
    p.add_argument("--idle-rounds", type=int, help="of which with idle streams (2)")
    p.add_argument("--only", help=f"peers, with commas, of {','.join(names)}")
    p.add_argument("--phases", default="bulk,short,idle", help="of bulk,short,idle")
    p.add_argument("--size", type=int, help="MB of one bulk flow (1000)")
    p.add_argument("--flows", type=int, help="short flows a round at most (5000)")
    p.add_argument("--idle", type=int, help="idle streams (5000)")
    p.add_argument("--budget", type=int, default=420, help="seconds for all rounds")
    o = p.parse_args()
    defaults = {"rounds": (5, 1), "idle_rounds": (2, 1), "size": (1000, 400),
                "flows": (5000, 2000), "idle": (5000, 1000)}
    for key, (full, quick) in defaults.items():
        if getattr(o, key) is None:
            setattr(o, key, quick if o.quick else full)
        if getattr(o, key) < 1:
            p.error(f"--{key.replace('_', '-')} has to be at least 1")
    o.size *= int(MB)
    o.short_ms = 1000 if o.quick else 3000
    o.only = o.only.split(",") if o.only else []
    o.phases = o.phases.split(",")
    for given, known in ((o.only, names), (o.phases, ["bulk", "short", "idle"])):
        unknown = set(given) - set(known)
        if unknown:
            p.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return o


def interrupted(number, _frame):
    raise SystemExit(128 + number)


def start_origin(procs, build):
    proc = procs.start("origin", [os.path.join(build, "bench", "blaster")], pipes=True)
    line = proc.stdout.readline()
    if not line:
        raise SystemExit(f"bench: the origin did not start: {procs.log_tail('origin')}")
    return json.loads(line)


def main():
    opt = parse_args()
    build = os.path.abspath(opt.build)
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupted)
    data = {"version": 1, "machine": measure.describe_machine(),
            "options": {k: v for k, v in vars(opt).items() if k not in ("build", "out")},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rounds_done": 0, "skipped": {}, "peers": {}}
    noise = measure.Noise()
    with tempfile.TemporaryDirectory(prefix="sallyport-bench-") as folder, \
            Procs(folder) as procs:
        ctx = peers.Context(procs, folder, build, source, start_origin(procs, build))
        ctx.make_certificate()
        chosen = choose(ctx, opt.only, data)
        if not chosen:
            raise SystemExit("bench: nothing to measure")
        all_rounds(Run(ctx, opt), chosen, data)
    data["noise"] = noise.over()
    report.conclude(data)
    os.makedirs(opt.out, exist_ok=True)
    path = os.path.join(opt.out, "report.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f, indent=1)
        f.write("\n")
    print(report.text(data))
    print(f"\n{os.path.relpath(path)}: every round's figures")
    failed = [n for n, e in data["peers"].items() if e["error"]]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
