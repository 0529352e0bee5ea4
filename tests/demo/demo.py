#!/usr/bin/python3
"""make demo: a fleet on loopback; a download whose carriers are cut, beside shadowsocks-libev;
what happens when nodes, the control plane and a user go; docs/demo.md."""
import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [os.path.join(HERE, "..", folder) for folder in ("bench", "common")]

# pylint: disable=wrong-import-position
import claims
import measure
import playground
import survivalclaims
from fleet import REGION_OF
from place import Place, missing
from procs import BenchError, descendants
from scenario import Scenario
from timeline import BOLD, GREEN, RED, Timeline, grouped

MB = 1_000_000


def options():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--build", required=True, help="folder of the built programs")
    p.add_argument("--report", default="build/demo/report.json")
    p.add_argument("--playground", action="store_true", help="start everything and wait")
    p.add_argument("--logs", action="store_true", help="keep the logs of a good run too")
    p.add_argument("--bytes", type=int, default=440 * MB)
    p.add_argument("--rate", type=int, default=8 * MB, help="of the origin, bytes a second")
    p.add_argument("--seed", type=int, default=int(time.time()), help="of the content")
    return p.parse_args()


def preflight(build):
    """What is missing, as one text, or None."""
    gone = missing()
    if gone:
        return (f"not installed: {', '.join(gone)} (Debian: "
                f"{' '.join(sorted(set(gone.values())))}); run deploy/install-deps")
    programs = [f"bin/{name}" for name in (
        "sallyport", "sallyport-worker", "sallyportctl", "sallyport-controller",
        "sallyport-healthcheck")] + ["tools/cutter"]
    gone = [p for p in programs if not os.access(os.path.join(build, p), os.X_OK)]
    return f"not built: {', '.join(gone)} in {build}; run make all tools" if gone else None


def ms(value):
    return "-" if value is None else f"{value:.0f}"


def show_tables(timeline, report):
    rows = []
    for e in report["events"]:
        ours, theirs = e["sallyport"], e["shadowsocks"]
        rows.append([
            e["event"], ms(e["untouched_ms"]),
            ms(ours["stall_ms"]) if ours["alive"] else "died",
            grouped(ours["lost"]), "equal" if ours["sha256_so_far_equal"] else "DIFFERS",
            ms(theirs["stall_ms"]) if theirs["alive"] else f"died: {theirs['curl_says']}",
            grouped(theirs["lost"]),
            "equal" if theirs["alive"] else "never whole"])
    last, peer = report["sallyport"][-1], report["shadowsocks"]
    whole = [d for d in peer if d["curl_exit"] == 0]
    longest = max(e["sallyport"]["stall_ms"] for e in report["events"])
    rows.append(["whole file", "", ms(longest), grouped(last["missing"]),
                 last["sha256"][:16], "", "", f"{len(whole)} of {len(peer)} whole"])
    kill = report["kill"]
    rows.append(["kill -9, new request", "", ms(kill["stall_ms"]),
                 grouped(kill["wanted"] - kill["received"]),
                 "equal" if kill["equal"] else "DIFFERS", "", "", ""])
    timeline.show()
    timeline.table(["event", "untouched: ms", "sallyport: stall ms", "bytes lost", "SHA-256",
                    "shadowsocks: stall ms", "bytes lost", "SHA-256"], rows)


def survived(report):
    """Rows of that table: what the worker in use went through under the download."""
    event = {e["kind"]: e for e in report["events"]}
    crash, upload = event["crash"], report["upload"]
    broken, new = event["rollback"]["installed"], event["upgrade"]["installed"]
    b = event["blocked"]["blocked"]
    at = crash["origin"]
    port, same = (", ".join(map(str, e.get("ports", []))) for e in (at, b.get("at_origin", {})))
    return [
        [f"exit of worker {crash['path']} killed", f"the last of {survivalclaims.KILLS}: another "
         "process", crash["exit_process"].get("back_ms")],
        ["", f"source port at the origin {port}, socket {at.get('inode')}", ""],
        ["", f"upload beside: {grouped(upload['sent'])} bytes, "
             f"{'equal' if upload['sha256'] == upload['sha256_of_origin'] else 'DIFFERS'}", ""],
        ["a broken program installed", f"exit status {broken['status']}, "
         f"{broken['version_after']} goes on", broken["ms"]],
        ["a new program installed", f"{new['version']} -> {new['version_after']}", new["ms"]],
        [f"address of {b['home']} blocked", f"the client goes on through {b.get('via')}",
         b.get("via_ms")],
        ["", f"source port {same}, {grouped(b.get('relay_bytes', 0))} bytes relayed; to the health "
             f"checkers {b.get('health')}", ""],
        ["", "direct again, once unblocked", b.get("direct_ms")]]


def show_fleet(timeline, report):
    """What was done to the fleet: a row for each thing that came of it."""
    a, b, k = report["apply"], report["broken"], report["kill"]
    s, alone, v = k["session"], report["alone"], report["revoke"]
    resume, back = alone["resume"], alone["converged"]
    up = b.get("tcp_when_down", b["tcp_at_once"])
    rows = [
        ["config changed", f"acknowledged by {len(a['acks_ms'])} of {a['workers']} workers",
         a["last_ack_ms"]],
        [f"worker {b['node']} hangs, port open", f"the client goes on through {b.get('moved_to')}",
         b.get("moved_ms")],
        ["", f"first byte of the request made at once, curl exit {b['first_exit']}",
         b["first_ms"]],
        ["", f"TCP check: {'up' if up else 'down'}; health checkers: "
             f"{b.get('said', 'nothing').partition('cause ')[2]}", b.get("down_ms")],
        ["", f"raw curl on the long poll: {b.get('poll_status')}, a new ETag", b.get("poll_ms")],
        ["", "out of the client's own config", b.get("gone_ms")],
        ["", "offered again, after SIGCONT", b.get("back_ms")],
        [f"kill -9 of worker {k['worker']}", "first byte of a new request", k["stall_ms"]],
        ["", f"session {(s['id_before'] or '-')[:8]} of {s['home_before']}: "
             f"{(s['id_after'] or '-')[:8]} at {s['home_after']}, {s['came']}", s["ms"]],
        ["", f"DNS look-ups since, answered: {k['dns_after']['answered']} of "
             f"{k['dns_after']['asked']}; the slowest", k["dns_after"]["ms_max"]],
        ["", "out of all clients' configs", k.get("out_ms")],
        ["controller, Redis killed", f"counter of worker {alone['node']}: "
         f"{grouped(alone['counted'][0])}, then {grouped(alone['counted'][1])} bytes", ""],
        ["", f"carrier reset: {resume['resumes']} resume(s), the download's pause",
         resume["stall_ms"]],
        ["both started, Redis empty", "all linked and healthy", back.get("linked_ms")],
        ["", f"next change acknowledged by {back.get('acks', 0)} of {back['workers']} workers",
         back.get("last_ack_ms")],
        ["", "with the client, since the start of both", back.get("client_ms")],
        ["user revoked", f"the download ends: curl exit {v['curl_exit']}", v["ended_ms"]],
        ["", f"a new request is refused: curl exit {v['new_exit']}", v["refused_ms"]]]
    rows[1:1] = survived(report)
    timeline.show()
    timeline.table(["the fleet", "what came of it", "after ms"],
                   [[what, came, "never" if value is None else value if value == "" else
                     ms(value)] for what, came, value in rows])


def show_claims(timeline, results):
    timeline.show("\nclaims", BOLD)
    for claim, ok, value in results:
        timeline.show(f"  {'holds ' if ok else 'FAILED'}  {claim}: {value}",
                      GREEN if ok else RED)


def run(opt, folder, timeline):
    """The demo; its report, with the claims."""
    noise = measure.Noise()
    place = Place(folder, os.path.abspath(opt.build), opt.bytes, opt.rate, opt.seed)
    with place:
        timeline.say(f"up: redis-server, a controller, {len(place.fleet.nodes)} workers in "
                     f"{len(set(REGION_OF.values()))} regions that enrolled, "
                     f"{len(place.fleet.vantages)} health checkers, a client")
        timeline.say("    origin, DNS server, shadowsocks, cutter; "
                     f"{len(place.pids)} processes, all on loopback")
        report = Scenario(place, timeline).run()
    timeline.say(f"all ended: {len(place.pids)} processes")
    left = place.left_behind() + descendants(os.getpid())
    report |= {"size": opt.bytes, "rate": opt.rate, "seed": opt.seed, "sha256": place.sha256,
               "seconds": round(time.monotonic() - timeline.began, 1),
               "left_behind": left, "machine": measure.describe_machine(),
               "noise": noise.over()}
    results = claims.judge(report)
    results.append(("no process is left behind", not left,
                    f"{len(place.pids)} pids looked for, {len(left)} alive"))
    report["claims"] = [{"claim": c, "holds": ok, "measured": v} for c, ok, v in results]
    report["timeline"] = timeline.lines
    show_tables(timeline, report)
    show_fleet(timeline, report)
    timeline.show(f"\nSHA-256 of the file at the origin: {report['sha256']}")
    show_claims(timeline, results)
    return report


def keep_logs(folder, report):
    """Copies the logs beside the report, for whoever has to find out why it failed."""
    to = os.path.join(os.path.dirname(report), "logs")
    shutil.rmtree(to, ignore_errors=True)
    os.makedirs(to)
    for name in os.listdir(folder):
        if name.endswith(".log"):
            shutil.copy(os.path.join(folder, name), to)
    print(f"demo: the logs of all processes are in {to}", file=sys.stderr)


def main():
    opt = options()
    why = preflight(opt.build)
    if why:
        sys.exit(f"demo: {why}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell ignores it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("demo: terminated"))
    timeline = Timeline()
    with tempfile.TemporaryDirectory(prefix="sallyport-demo-") as folder:
        try:
            if opt.playground:
                return playground.run(opt, folder)
            report = run(opt, folder, timeline)
        except KeyboardInterrupt:
            sys.exit("demo: interrupted; everything that was started has been ended")
        except (BenchError, OSError) as e:
            keep_logs(folder, opt.report)
            sys.exit(f"demo: {e}")
        except Exception:  # a defect of the demo's own; the logs may tell why
            keep_logs(folder, opt.report)
            raise
        good = all(c["holds"] for c in report["claims"])
        if not good or opt.logs:
            keep_logs(folder, opt.report)
    os.makedirs(os.path.dirname(opt.report) or ".", exist_ok=True)
    with open(opt.report, "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
    timeline.show(f"\n{opt.report} has everything; {report['seconds']} s in all; other "
                  f"programs used {report['noise']['foreign_share']:.0%} of the machine.")
    timeline.show("All claims hold." if good else "A CLAIM FAILED.", GREEN if good else RED)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
