"""The history checker: reads what both ends of every stream wrote down (app.c, dest.c) and
what a replayer of epochs was told, and finds what must not be. Pure: dictionaries in,
faults out, so that it can be shown bad histories (test_history.py).

A stream's content is a function of its number, the direction and the offset, so each end
says which *content* came in which order: runs [from, to), or [from, to, stream, direction]
of another stream; stream -1: bytes that belong nowhere."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field

UP, DOWN = 0, 1


@dataclass
class Fault:
    """kind: lost, doubled, reordered, wrong, foreign (another stream's bytes), short (an end
    before the sender's), false-end (an end that the sender never told), reset, refused,
    unfinished, two-homes, nobody (never accepted), stale-epoch."""
    kind: str
    stream: int
    bytes: int = 0
    text: str = ""


@dataclass
class Verdict:
    faults: list = field(default_factory=list)
    streams: int = 0
    finished: int = 0
    redone: int = 0
    empty: int = 0  # connections that ended without a byte: dials that were given up
    verified: int = 0  # bytes, both ends
    kinds: dict = field(default_factory=dict)
    stalls_ms: dict = field(default_factory=dict)  # kind -> the longest of each stream

    def count(self, *kinds):
        return sum(1 for f in self.faults if f.kind in kinds)

    def told(self, most=50):
        return [asdict(f) for f in self.faults[:most]]


def read(path):
    """The lines of a history; one that a killed process did not finish is left out."""
    events = []
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.endswith("\n"):
                events.append(json.loads(line))
    return events


class Covered:
    """Which content offsets have come; runs are few."""

    def __init__(self):
        self.parts = []

    def add(self, a, b):
        """How many of [a, b) had come before."""
        again = sum(max(0, min(b, y) - max(a, x)) for x, y in self.parts)
        new = []
        for x, y in sorted([*self.parts, (a, b)]):
            if new and x <= new[-1][1]:
                new[-1] = (new[-1][0], max(new[-1][1], y))
            else:
                new.append((x, y))
        self.parts = new
        return again

    def holes(self):
        at, holes = 0, []
        for x, y in self.parts:
            if x > at:
                holes.append((at, x))
            at = max(at, y)
        return holes


def check_runs(stream, direction, runs, n_runs=None):
    """Faults in the order of what came in one direction of a stream."""
    faults, seen, top, expect = [], Covered(), 0, 0
    way = ("up", "down")[direction]
    for i, run in enumerate(runs):
        a, b, *other = run
        n = b - a
        if not n:
            continue
        if other and other[0] >= 0:
            faults.append(Fault("foreign", stream, n, f"{way}: [{a}, {b}) of stream "
                                f"{other[0]} {('up', 'down')[other[1]]}"))
        elif other:
            after = runs[i + 1] if i + 1 < len(runs) else None
            faults.append(Fault("wrong", stream, n, f"{way} at {expect}: {n} bytes that "
                                "belong nowhere"))
            if after is None or (len(after) == 2 and after[0] == expect + n):
                seen.add(expect, expect + n)  # in the place of those that were due
                expect += n
                top = max(top, expect)
        else:
            again = seen.add(a, b)
            if again:
                faults.append(Fault("doubled", stream, again, f"{way}: of [{a}, {b})"))
            if a < top and again < n:
                faults.append(Fault("reordered", stream, n - again,
                                    f"{way}: [{a}, {b}) after {top}"))
            top, expect = max(top, b), b
    for a, b in seen.holes():
        faults.append(Fault("lost", stream, b - a, f"{way}: [{a}, {b})"))
    if n_runs is not None and n_runs > len(runs):
        faults.append(Fault("reordered", stream, 0, f"{way}: {n_runs} runs"))
    return faults


def check_ends(stream, direction, sender, receiver):
    """What one end says it sent against what the other says it got."""
    way, sent, got = ("up", "down")[direction], sender["sent"], receiver["bytes"]
    if got > sent:
        return [Fault("doubled", stream, got - sent, f"{way}: {got} came, {sent} were sent")]
    if receiver["eof"] and not sender["fin"]:
        return [Fault("false-end", stream, sent - got, f"{way}: an end at {got} that was "
                      "not told")]
    if receiver["eof"] and got < sent:
        return [Fault("short", stream, sent - got, f"{way}: the end at {got} of {sent}")]
    return []


def _check_stream(stream, app, conns, may_redo):
    """app: its end or None; conns: ends of the destination's connections, by number."""
    faults = []
    served = [c for c in conns if c["bytes"] or c["sent"]]
    for end in ([app] if app else []) + conns:
        direction = DOWN if end["at"] == "app" else UP
        faults += check_runs(stream, direction, end["runs"], end.get("n_runs"))
    if len(conns) > 1:
        answered = [c for c in conns if c["sent"]]
        if len(answered) > 1 or not may_redo:
            faults.append(Fault("two-homes", stream, 0,
                                f"{len(conns)} connections, {len(answered)} of which "
                                "answered"))
    main = served[-1] if served else conns[-1] if conns else None
    for c in conns:
        if c["how"] == "failed" and (c is main or not may_redo):
            faults.append(Fault("reset", stream, 0, f"at the destination, errno {c['errno']}"))
    if app is None:
        return faults
    if app["how"] == "failed":
        faults.append(Fault("reset", stream, 0, f"at the application, errno {app['errno']}"))
    elif app["how"] == "open":
        faults.append(Fault("unfinished", stream, 0, f"{app['bytes']} came, "
                            f"{app['sent']} sent"))
    if main is None:
        if app["bytes"] or app["sent"] or app["how"] == "done":
            faults.append(Fault("nobody", stream, 0, "no destination has seen it"))
        return faults
    faults += check_ends(stream, UP, app, main)
    faults += check_ends(stream, DOWN, main, app)
    return faults


def check(app_events, dest_events, may_redo=False, may_refuse=False):
    """The verdict on all streams. may_redo: a dial that was not answered may be made again
    elsewhere; may_refuse: streams that never began are no fault."""
    v = Verdict()
    ends, conns, kinds, refused, opened = {}, defaultdict(list), {}, {}, set()
    for e in app_events:
        if e["e"] == "open":
            kinds[e["s"]] = e["k"]
            opened.add(e["s"])
        elif e["e"] == "refused":
            refused[e["s"]] = e
        elif e["e"] == "end":
            ends[e["s"]] = e
    for e in dest_events:
        if e["e"] == "end":
            conns[e["s"]].append(e)
        elif e["e"] == "stranger":
            v.empty += 1
            if e["have"]:
                v.faults.append(Fault("wrong", -1, e["have"], "not a stream's first bytes"))
    for s in sorted(opened | set(conns)):
        mine = sorted(conns.get(s, ()), key=lambda e: e["c"])
        v.streams += 1
        v.redone += max(0, len(mine) - 1)
        end = ends.get(s)
        if end:
            v.finished += end["how"] == "done"
            v.stalls_ms.setdefault(kinds.get(s, "?"), []).append(
                max(e["stall_ms"] for e in [end, *mine]))
        v.verified += sum(e["bytes"] for e in mine) + (end["bytes"] if end else 0)
        if s in refused and not may_refuse:
            r = refused[s]
            v.faults.append(Fault("refused", s, 0, f"{kinds.get(s)}: {r['why']} {r['code']} "
                                  f"after {r['after_ms']:.0f} ms"))
        v.faults += _check_stream(s, end, mine, may_redo)
    for k in kinds.values():
        v.kinds[k] = v.kinds.get(k, 0) + 1
    return v


def check_epochs(events):
    """Of each session only rising epochs may be accepted, and a refused one may not have
    been the highest. events: {"session", "epoch", "accepted", "reason"} in their order."""
    faults, highest = [], {}
    for e in events:
        top = highest.get(e["session"], 0)
        if e["accepted"] and e["epoch"] <= top:
            faults.append(Fault("stale-epoch", -1, 0, f"epoch {e['epoch']} accepted after "
                                f"{top}"))
        if e["accepted"]:
            highest[e["session"]] = max(top, e["epoch"])
        elif e["epoch"] <= top and e["reason"] not in ("stale-epoch", "ticket"):
            faults.append(Fault("stale-epoch", -1, 0, f"epoch {e['epoch']} after {top}: "
                                f"refused for {e['reason']}"))
    return faults


def merge(stalls):
    """Distributions [[ms, count], ...] as one, sorted."""
    all_ms = defaultdict(int)
    for part in stalls:
        for ms, n in part:
            all_ms[ms] += n
    return sorted(all_ms.items())


def percentile(dist, p):
    """Of a distribution [(ms, count)]; None if it is empty."""
    total = sum(n for _, n in dist)
    if not total:
        return None
    need, seen = total * p / 100, 0
    for ms, n in dist:
        seen += n
        if seen >= need:
            return ms
    return dist[-1][0]
