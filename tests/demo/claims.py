"""The claims of the demo, each judged from the report alone: those about carriers here, those
about the worker in use in survivalclaims.py, those about the fleet in fleetclaims.py."""
import fleetclaims
import survivalclaims
from survivalclaims import KILLS, alive, of, worst

RESETS = 10
# What is promised, and an allowance for a machine with two busy cores. The pause of an
# untouched download at the same moment is the machine's, and is taken off first.
RESET_MS, RESET_BUSY_MS = 50, 200     # 2 RTT + 50 ms; the RTT is nothing on loopback
FREEZE_MS, FREEZE_BUSY_MS = 1000, 250
NEW_REQUEST_MS, NEW_BUSY_MS = 1000, 250
ALL_S, ALL_BUSY_S = 60, 30


def judge(report):
    """[(claim, whether it holds, the measured value)]"""
    return [_whole(report), _faultless(report), _met(report), _resumed(report),
            _resets(report), _freeze(report), _peer(report), _dns(report),
            _after_kill(report), _dns_after(report), *survivalclaims.judge(report),
            *fleetclaims.judge(report), _in_time(report)]


def _whole(r):
    runs = r["sallyport"]
    asked = [q for q in r["requests"] if q["path"] == "/file?sallyport"]
    ok = (len(runs) == 1 and runs[0]["curl_exit"] == 0
          and runs[0]["received"] == r["size"] and runs[0]["sha256"] == r["sha256"]
          and len(asked) == 1)
    return ("one download through sallyport, asked for once, comes whole with its SHA-256", ok,
            f"curl exit {runs[0]['curl_exit']}, {runs[0]['received']:,} bytes, "
            f"SHA-256 {runs[0]['sha256'][:16]}…, {len(asked)} request(s) at the origin")


def _faultless(r):
    faults = {k: sum(d[k] for d in r["sallyport"]) for k in ("lost", "doubled", "wrong")}
    return ("no byte of it lost, doubled or wrong", not any(faults.values()),
            ", ".join(f"{v} {k}" for k, v in faults.items()))


def _met(r):
    events = of(r, "reset") + of(r, "freeze")
    met = sum(e["carriers"] > 0 and e["sallyport"]["received"] > 0 for e in events)
    return (f"{RESETS} resets and a freeze met the carrier in use",
            met == RESETS + 1 == len(events), f"{met} of {RESETS + 1}")


def _resumed(r):
    exits = (r["client"] or {}).get("exits", [])
    resumes, lost = (sum(e[k] for e in exits) for k in ("resumes", "homes_lost"))
    return ("the client resumed its session each time, and nobody began a new one",
            resumes >= RESETS + KILLS + 1 and lost == 0,
            f"{resumes} resumes, {lost} sessions lost, by its own counters")


def _pause(r, kind, what, limit):
    beyond, whole, own = worst(of(r, kind))
    return (f"{what} pauses it at most {limit:,} ms beyond an untouched download's own pause",
            alive(of(r, kind)) and beyond <= limit,
            f"at worst {whole:.0f} ms, the untouched one {own:.0f} ms")


def _resets(r):
    return _pause(r, "reset", "a reset", RESET_MS + RESET_BUSY_MS)


def _freeze(r):
    return _pause(r, "freeze", "a silent freeze", FREEZE_MS + FREEZE_BUSY_MS)


def _peer(r):
    events = of(r, "reset") + of(r, "freeze")
    dead = [e for e in events if e["peer_connections"] > 0 and not e["shadowsocks"]["alive"]
            and e["shadowsocks"]["curl_exit"]]
    return ("each of the same events ends the download through shadowsocks",
            len(dead) == RESETS + 1, f"{len(dead)} of {RESETS + 1} died")


def _dns(r):
    d = r["dns"]
    return ("every DNS look-up is answered", d["asked"] > 0 and d["unanswered"] == 0,
            f"{d['answered']} of {d['asked']}; dig asked again for {d['asked_again_by_dig']}; "
            f"{d['later_than_1_s']} took over 1 s; median {d['ms_median']:.0f} ms, "
            f"longest {d['ms_max']:.0f} ms")


def _after_kill(r):
    k, limit = r["kill"], NEW_REQUEST_MS + NEW_BUSY_MS
    ok = (k["curl_exit"] == 0 and k["equal"] and k["received"] == k["wanted"]
          and k["path_after"] != k["worker"]
          and k["stall_ms"] is not None and k["stall_ms"] <= limit)
    took = "no byte" if k["stall_ms"] is None else f"{k['stall_ms']:.0f} ms"
    return (f"after kill -9 a new request is answered by the other worker within {limit:,} ms",
            ok, f"{took}, through {k['path_after']}, curl exit {k['curl_exit']}")


def _dns_after(r):
    d = r["kill"]["dns_after"]
    return ("look-ups go on after the kill", d["asked"] > 0 and d["unanswered"] == 0,
            f"{d['answered']} of {d['asked']}; dig asked again for {d['asked_again_by_dig']}; "
            f"longest {d['ms_max']:.0f} ms")


def _in_time(r):
    limit = ALL_S + ALL_BUSY_S
    return (f"all this takes at most {limit} s", 0 < r["seconds"] <= limit,
            f"{r['seconds']:.1f} s")
