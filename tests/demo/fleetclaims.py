"""The claims of the demo about the fleet, each judged from the report alone; see claims.py."""

# Promises, and an allowance for a machine with two busy cores.
APPLY_MS, APPLY_BUSY_MS = 250, 250
OUT_MS, OUT_BUSY_MS = 3000, 1500       # probes each second, deadline 500 ms
WAKE_MS, WAKE_BUSY_MS = 100, 400       # from the verdict to the answer of a long poll
MOVED_MS, MOVED_BUSY_MS = 1500, 1000   # what a client does by itself
ADOPT_MS, ADOPT_BUSY_MS = 1000, 1000
RESUME_MS, RESUME_BUSY_MS = 50, 450
REVOKE_MS, REVOKE_BUSY_MS = 1000, 250
CONVERGE_MS, CONVERGE_BUSY_MS = 10_000, 10_000


def judge(report):
    """[(claim, whether it holds, the measured value)]"""
    return [_applied(report), _open_but_down(report), _woken(report), _moved(report),
            _back(report), _adopted(report), _out(report), _counts(report), _resumes(report),
            _converges(report), _revoked(report)]


def _within(ms, *limit):
    return ms is not None and ms <= sum(limit)


def _ms(value):
    return "never" if value is None else f"{value:,.0f} ms"


def _applied(r):
    a = r["apply"]
    event = next((e for e in r["events"] if e["kind"] == "apply"), None)
    ok = (a["ctl_exit"] == 0 and a["sequence"] > a["sequence_before"]
          and len(a["acks_ms"]) == a["workers"] > 0
          and _within(a["last_ack_ms"], APPLY_MS, APPLY_BUSY_MS)
          and event is not None and event["sallyport"]["alive"])
    return (f"a change is in force on every worker within {APPLY_MS + APPLY_BUSY_MS} ms of the "
            "command, under a download that goes on", ok,
            f"{len(a['acks_ms'])} of {a['workers']} acknowledged, the last after "
            f"{_ms(a['last_ack_ms'])}; the command itself took {_ms(a['ctl_ms'])}")


def _open_but_down(r):
    b = r["broken"]
    ok = (b["tcp_at_once"] and b.get("tcp_when_down") is True and "rung " in b.get("said", "")
          and "rung connect" not in b["said"] and _within(b.get("down_ms"), OUT_MS, OUT_BUSY_MS))
    return ("a node that hangs behind its open port is up to a TCP check, and down to the health "
            f"checkers within {OUT_MS + OUT_BUSY_MS:,} ms", ok,
            f"after {_ms(b.get('down_ms'))}: {b.get('said')}")


def _woken(r):
    b = r["broken"]
    down, poll = b.get("down_ms"), b.get("poll_ms")
    ok = (b["offered_before"] and b.get("poll_status") == 200 and None not in (down, poll)
          and b.get("etag") not in (None, b["etag_before"])
          and _within(poll - down, WAKE_MS, WAKE_BUSY_MS))
    return ("a long poll that waits is answered without that node, and with a new ETag, within "
            f"{WAKE_MS + WAKE_BUSY_MS} ms of the verdict", ok,
            f"{_ms(poll)} after the node was stopped, the verdict {_ms(down)}")


def _moved(r):
    b = r["broken"]
    ok = (_within(b.get("moved_ms"), MOVED_MS, MOVED_BUSY_MS) and b["request_exit"] == 0
          and b.get("moved_to") not in (None, b["node"])
          and b["first_exit"] == 0 and _within(b["first_ms"], MOVED_MS, MOVED_BUSY_MS)
          and _within(b.get("gone_ms"), OUT_MS, OUT_BUSY_MS))
    return ("the client leaves that node, with the request that was made as it hung, and drops it "
            "from its config", ok,
            f"goes on through {b.get('moved_to')} after {_ms(b.get('moved_ms'))}; first byte of "
            f"that request after {_ms(b['first_ms'])}, curl exit {b['first_exit']}; out of its "
            f"config after {_ms(b.get('gone_ms'))}")


def _back(r):
    ms = r["broken"].get("back_ms")
    was_out = r["broken"].get("gone_ms") is not None
    return ("that node is offered again when it has recovered", was_out and ms is not None,
            f"{_ms(ms)} after SIGCONT, a hold-down of 1 s included")


def _adopted(r):
    s = r["kill"]["session"]
    whole = s["id_before"] is not None and s["id_before"] == s["id_after"]
    ok = (whole and s["id_before"].startswith(s["client_before"] or "?")
          and s["client_before"] == s["client_after"] and s["came"] == "adopted"
          and s["home_after"] not in (None, s["home_before"])
          and _within(s["ms"], ADOPT_MS, ADOPT_BUSY_MS))
    return ("after kill -9 another worker adopts the session from Redis under the same id", ok,
            f"{s['id_before']} of {s['home_before']}, {s['id_after']} of {s['home_after']}: "
            f"{s['came']}, after {_ms(s['ms'])}")


def _out(r):
    k = r["kill"]
    ok = _within(k.get("out_ms"), OUT_MS, OUT_BUSY_MS) and k.get("back_ms") is not None
    return (f"the killed node is out of all clients' configs within {OUT_MS + OUT_BUSY_MS:,} ms, "
            "and back when it runs again", ok,
            f"out after {_ms(k.get('out_ms'))}, back {_ms(k.get('back_ms'))} after its start")


def _counts(r):
    a = r["alone"]
    first, second = a["counted"]
    return ("without controller and Redis the worker's counters move, and requests are served",
            not a["controller_answers"] and second > first and a["request_exit"] == 0,
            f"{first:,.0f}, then {second:,.0f} bytes; a new request: curl exit "
            f"{a['request_exit']}")


def _resumes(r):
    c = r["alone"]["resume"]
    beyond = max(0.0, c["stall_ms"] - c["untouched_ms"])
    ok = (c["carriers"] > 0 and c["resumes"] > 0 and c["same_session"] and c["alive"]
          and c["equal"] and c["received"] > 0 and beyond <= RESUME_MS + RESUME_BUSY_MS)
    return ("a carrier that is cut meanwhile is resumed, and the download goes on", ok,
            f"paused {_ms(c['stall_ms'])}, the untouched one {_ms(c['untouched_ms'])}; "
            f"{c['resumes']} resume(s), "
            f"{'the same session' if c['same_session'] else 'ANOTHER session'}")


def _converges(r):
    c = r["alone"]["converged"]
    ok = (_within(c.get("linked_ms"), CONVERGE_MS, CONVERGE_BUSY_MS)
          and c.get("acks") == c["workers"] > 0
          and _within(c.get("client_ms"), CONVERGE_MS, CONVERGE_BUSY_MS)
          and c["epoch"] > c["epoch_before"])
    return ("both back, Redis empty: all nodes are linked and healthy, they and the client take "
            "the next change", ok,
            f"after {_ms(c.get('linked_ms'))}; {c.get('acks')} of {c['workers']} acknowledged, the "
            f"client had it after {_ms(c.get('client_ms'))}; "
            f"epoch {c['epoch_before']}, then {c['epoch']}")


def _revoked(r):
    v = r["revoke"]
    ok = (_within(v["ended_ms"], REVOKE_MS, REVOKE_BUSY_MS) and v["curl_exit"] != 0
          and _within(v["refused_ms"], 2 * REVOKE_MS, REVOKE_BUSY_MS)
          and 0 < v["received"] < v["size"] and v["new_exit"] not in (0, None)
          and v["new_received"] == 0)
    return (f"a revoked user's download ends within {REVOKE_MS + REVOKE_BUSY_MS:,} ms, and new "
            "requests are refused", ok,
            f"{_ms(v['ended_ms'])}, curl exit {v['curl_exit']}; a new one after "
            f"{_ms(v['refused_ms'])}: {v['new_exit']}, {v['served_after']} served before it")
