"""The claims of the demo about what the worker in use survives, each judged from the report
alone; see claims.py."""

KILLS = 10
# Promises, and an allowance for a machine with two busy cores.
CRASH_MS, CRASH_BUSY_MS = 50, 250     # 50 ms + 3 RTT; the RTT is nothing on loopback
UPGRADE_MS, UPGRADE_BUSY_MS = 150, 350
TRIAL_MS, TRIAL_BUSY_MS = 2000, 500  # within which a new program has to take over
BLOCKED_MS, BLOCKED_BUSY_MS = 1500, 500
DIRECT_MS = 10_000                   # no promise: it is dialled each few seconds
RELAYED_BYTES = 1_000_000


def judge(report):
    """[(claim, whether it holds, the measured value)]"""
    return [_killed(report), _crash_pause(report), _same_source(report), _peer(report),
            _upload(report), _rolled_back(report), _upgraded(report), _blocked(report),
            _direct(report)]


def of(r, kind):
    return [e for e in r["events"] if e["kind"] == kind]


def worst(events):
    """The stall that is longest beyond the machine's own: (beyond, whole, machine's), ms."""
    stalls = [(e["sallyport"]["stall_ms"], e["untouched_ms"]) for e in events]
    return max(((max(0.0, ms - own), ms, own) for ms, own in stalls), default=(0.0, 0.0, 0.0))


def alive(events):
    return bool(events) and all(e["sallyport"]["alive"] for e in events)


def _killed(r):
    exits = [e.get("exit_process", {}) for e in of(r, "crash")]
    pids = {p.get("pid") for p in exits} - {None}
    ok = (len(exits) == KILLS == len(pids)
          and all(p.get("pid_after") not in (None, p["pid"]) for p in exits)
          and all(e["sallyport"]["received"] > 0 for e in of(r, "crash")))
    back = [p["back_ms"] for p in exits if p.get("back_ms") is not None]
    return (f"{KILLS} times the exit process of the worker in use dies by kill -9, and another "
            "takes over", ok, f"{len(pids)} killed, {len(back)} came after"
            + (f", at the latest after {max(back):.0f} ms" if back else ""))


def _crash_pause(r):
    beyond, whole, own = worst(of(r, "crash"))
    limit = CRASH_MS + CRASH_BUSY_MS
    return (f"such a kill pauses the download at most {limit} ms beyond an untouched "
            "download's own pause", alive(of(r, "crash")) and beyond <= limit,
            f"at worst {whole:.0f} ms, the untouched one {own:.0f} ms")


def _same_source(r):
    """Over all events: what the origin sees is one connection, from one port, one socket."""
    seen = [e["origin"] for e in r["events"]]
    ports = {p for s in seen for p in s["ports"]}
    sockets = {s["inode"] for s in seen if s.get("inode") is not None}
    ok = (bool(seen) and all(s["requests"] == 1 and s["established"] for s in seen)
          and len(ports) == len(sockets) == 1)
    return ("all the while the origin sees one connection, from the same source port and the "
            "same socket", ok, f"{len(seen)} looks: port "
            f"{', '.join(map(str, sorted(ports))) or 'none'}, {len(sockets)} socket(s), "
            f"{max((s['requests'] for s in seen), default=0)} request(s)")


def _peer(r):
    dead = [e for e in of(r, "crash") if e.get("exit_process", {}).get("peer_pid")
            and not e["shadowsocks"]["alive"] and e["shadowsocks"]["curl_exit"]]
    return ("kill -9 of its server at the same moments ends the download through shadowsocks "
            "each time", len(dead) == KILLS, f"{len(dead)} of {KILLS} died")


def _upload(r):
    u = r["upload"]
    got = u["at_origin"][0] if len(u["at_origin"]) == 1 else {}
    faults = {k: got.get(k) for k in ("lost", "doubled", "wrong")}
    ok = (u["curl_exit"] == 0 and u["requests"] == 1 and u["sent"] == got.get("size")
          and u["sent"] > 0 and u["sha256"] == u["sha256_of_origin"] == got.get("sha256")
          and all(v == 0 for v in faults.values()))
    return ("an upload beside these kills comes whole too", ok,
            f"curl exit {u['curl_exit']}, {u['sent']:,} bytes sent, {got.get('size') or 0:,} at "
            f"the origin, {', '.join(f'{v} {k}' for k, v in faults.items())}")


def _installed(r, kind):
    """(events, what was installed)"""
    events = of(r, kind)
    return events, events[0]["installed"] if len(events) == 1 else {}


def _rolled_back(r):
    events, new = _installed(r, "rollback")
    beyond, whole, own = worst(events)
    limit = TRIAL_MS + TRIAL_BUSY_MS
    ok = (alive(events) and new.get("status") not in (0, None) and "rolled back" in new["said"]
          and new["version"] and new["version_after"] == new["version"] and beyond <= limit)
    return ("a new program that crashes is rolled back, and the download goes on within "
            f"{limit:,} ms", ok, f"exit status {new.get('status')}: {new.get('said')}; paused "
            f"{whole:.0f} ms, the untouched one {own:.0f} ms; version {new.get('version_after')}")


def _upgraded(r):
    events, new = _installed(r, "upgrade")
    beyond, whole, own = worst(events)
    limit = UPGRADE_MS + UPGRADE_BUSY_MS
    ok = (alive(events) and new.get("status") == 0 and new["version"]
          and new["version_after"] not in ("", new["version"])
          and new["pid_after"] not in (None, new["pid"]) and beyond <= limit)
    return (f"an upgrade of the worker in use pauses the download at most {limit} ms beyond an "
            "untouched download's own pause", ok,
            f"{new.get('version')} to {new.get('version_after')}, process {new.get('pid')} to "
            f"{new.get('pid_after')}; {whole:.0f} ms, the untouched one {own:.0f} ms")


def _blocked(r):
    events = of(r, "blocked")
    b = events[0]["blocked"] if len(events) == 1 else {}
    beyond, whole, own = worst(events)
    limit = BLOCKED_MS + BLOCKED_BUSY_MS
    before = events[0]["origin"] if events else {}
    at = b.get("at_origin", {})
    ok = (alive(events) and b.get("carriers", 0) > 0 and b.get("via") not in (None, "", b["home"])
          and b.get("relay_bytes", 0) >= RELAYED_BYTES and beyond <= limit
          and b["session"] and b["session"] == b["session_via"] and b["health"] == "healthy"
          and at.get("established") is True and at["requests"] == 1
          and at["ports"] == before["ports"] and at["inode"] == before["inode"])
    return ("its address blocked for the client alone, the download goes on through another worker "
            f"within {limit:,} ms, from the same source port", ok,
            f"through {b.get('via')}, {b.get('relay_bytes', 0):,} bytes; paused {whole:.0f} ms, "
            f"the untouched one {own:.0f} ms; port {', '.join(map(str, at.get('ports', [])))}; "
            f"health of {b.get('home')}: {b.get('health')}")


def _direct(r):
    events = of(r, "blocked")
    ms = events[0]["blocked"].get("direct_ms") if events else None
    return ("unblocked, the client is back on the direct way within "
            f"{DIRECT_MS:,} ms", ms is not None and ms <= DIRECT_MS,
            "never" if ms is None else f"{ms:,.0f} ms")
