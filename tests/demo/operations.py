"""What is done to the fleet itself, and how long it takes: a config applied, a node broken with
its port open, the node in use killed, the control plane gone, a user revoked. It only does
and measures; fleetclaims.py judges. What is done to carriers: scenario.py."""
import contextlib
import json
import socket
import threading
import time

from fleet import USER
from procs import BenchError, wait_until
from timeline import BOLD, GREEN, RED
from transfer import Transfer

LONG_S = 20          # waits for what takes a second or three on a machine that is idle
QUICK_BYTES = 1_000_000
NEW_REQUEST_S = 10
BEGUN_BYTES = 2_000_000
LOOK_S = 2.0         # between two looks at counters that should move
COUNTER = 'sallyport_worker_stream_bytes_total{tier="standard",direction="to_client"}'


def ms_since(began, at=None):
    return round(((at if at is not None else time.monotonic()) - began) * 1000, 1)


def tcp_check(port):
    """What a monitor that only connects sees: (up, ms)."""
    began = time.monotonic()
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False, ms_since(began)
    return True, ms_since(began)


class LongPoll:
    """Stock curl on the config endpoint, in turn and each time with the ETag it got last, until
    `node` is not in the answer."""

    def __init__(self, place, token, node):
        self.place, self.token, self.node = place, token, node
        self.first = self._ask(None)
        self.began = time.monotonic()
        self.answers = []  # {"status", "etag", "exits", "at"}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _ask(self, etag):
        """One request; its answer. With an ETag it waits for another."""
        place, name = self.place, "curl-poll"
        proc = place.procs.start(name, [
            "curl", "--silent", "--include", "--disable", "--noproxy", "*", "--max-time", "60",
            "--header", f"Authorization: Bearer {self.token}",
            *(["--header", f"If-None-Match: {etag}"] if etag else []),
            place.fleet.endpoint + ("?wait=50" if etag else "")], pipes=True)
        self.proc = proc
        try:
            text = proc.stdout.read().decode()
        finally:
            place.procs.end(proc)
        head, _, body = text.partition("\r\n\r\n")
        lines = head.split("\r\n")
        etags = [x.partition(":")[2].strip() for x in lines if x.lower().startswith("etag:")]
        signed = body.partition("\n")[2]  # behind the line with the signature
        return {"status": int(lines[0].split()[1]) if " " in lines[0] else 0,
                "etag": etags[0] if etags else None, "at": time.monotonic(),
                "exits": [e["name"] for e in json.loads(signed)["exits"]] if signed else None}

    def _run(self):
        etag = self.first["etag"]
        with contextlib.suppress(OSError, ValueError):
            while not self.over.is_set():
                answer = self._ask(etag)
                self.answers.append(answer)
                etag = answer["etag"] or etag
                if self.found() or answer["status"] not in (200, 304):
                    return

    def found(self):
        """The answer without the node, or None."""
        return next((a for a in self.answers
                     if a["exits"] is not None and self.node not in a["exits"]), None)

    def stop(self):
        self.over.set()
        if self.thread.is_alive():
            with contextlib.suppress(ProcessLookupError):
                self.proc.terminate()
        self.thread.join(10)


class Operations:
    def __init__(self, place, timeline):
        self.place, self.fleet, self.timeline = place, place.fleet, timeline

    # ---- (a) a change ----

    def apply(self, **change):
        """Applies a changed fleet file; when each worker acknowledged it."""
        fleet = self.fleet
        before = fleet.operator.head()
        path = fleet.write_file(**change)
        began = time.monotonic()
        proc = self.place.procs.start("sallyportctl-apply", [
            fleet.program("sallyportctl"), "apply", "-f", path, "--socket",
            fleet.operator.socket])
        acked, answered = {}, None

        def everywhere():
            nonlocal answered
            if answered is None and proc.poll() is not None:
                answered = time.monotonic()
            for name, position in fleet.applied().items():
                if position > before:
                    acked.setdefault(name, ms_since(began))
            return answered is not None and (len(acked) == len(fleet.nodes)
                                             or proc.returncode != 0)
        wait_until(everywhere, LONG_S, "every worker acknowledges the change")
        self.place.procs.end(proc)
        return {"at_s": round(began - self.timeline.began, 3), "ctl_exit": proc.returncode,
                "ctl_ms": ms_since(began, answered), "sequence": fleet.operator.head()[1],
                "sequence_before": before[1], "workers": len(fleet.nodes), "acks_ms": acked,
                "last_ack_ms": max(acked.values(), default=None)}

    # ---- (b) a node that hangs behind its open port ----

    def broken(self):
        fleet, say = self.fleet, self.timeline.say
        name = fleet.in_use()["name"]
        node = fleet.nodes[name]
        token = fleet.operator.user_token(USER)
        poll = LongPoll(self.place, token, name)
        try:
            wait_until(lambda: poll.proc.poll() is None, LONG_S, "curl waits")
            report = {"node": name, "offered_before": name in poll.first["exits"],
                      "etag_before": poll.first["etag"]}
            began, wall = time.monotonic(), time.time()
            fleet.stop_worker(name)
            report["at_s"] = round(began - self.timeline.began, 3)
            report["tcp_at_once"], report["tcp_at_once_ms"] = tcp_check(node.far)
            say(f"SIGSTOP to worker {name}, the one in use: it hangs, its port stays open", BOLD,
                began)
            first = self._begin_request("curl-at-once")
            self._watch(report, node, poll, began, wall)
            self._end_request(first)
            report["first_exit"] = first.status
            report["first_ms"] = ms_since(began, first.times[0]) if first.times else None
            self._say_broken(report)
        finally:
            fleet.continue_worker(name)
            poll.stop()
        back = time.monotonic()
        wait_until(lambda: fleet.health()[name]["health"] == "healthy"
                   and name in {e["name"] for e in fleet.status()["exits"]}, LONG_S,
                   f"{name} is back")
        report["back_ms"] = ms_since(back)
        say(f"SIGCONT: judged healthy and offered again after {report['back_ms']:.0f} ms", GREEN)
        return report

    def _watch(self, report, node, poll, began, wall):
        """Waits for the four things that should come of it; writes down when each did."""
        fleet, seen = self.fleet, report  # filled as it comes

        def events():
            return [e for e in fleet.events("node-down", node.full)
                    if e["time_ms"] >= wall * 1000 - 1]

        def look():
            if "moved_ms" not in seen and fleet.in_use().get("name") not in (None, node.name):
                seen["moved_ms"] = ms_since(began)
                seen["moved_to"] = fleet.in_use()["name"]
            if "down_ms" not in seen and (found := events()):
                seen["down_ms"] = round(found[0]["time_ms"] - wall * 1000, 1)
                seen["said"] = found[0]["text"]
                seen["tcp_when_down"], _ = tcp_check(node.far)
            if "poll_ms" not in seen and (answer := poll.found()):
                seen.update(poll_ms=ms_since(began, answer["at"]), etag=answer["etag"],
                            poll_status=answer["status"], polls=len(poll.answers))
            if "gone_ms" not in seen and node.name not in {
                    e["name"] for e in (fleet.status() or {}).get("exits", [{}])}:
                seen["gone_ms"] = ms_since(began)
            return {"moved_ms", "down_ms", "poll_ms", "gone_ms"} <= set(seen)

        with contextlib.suppress(BenchError):  # what is missing is judged
            wait_until(look, LONG_S, "all is seen")
        new = self.request("curl-beside")
        report["request_exit"] = new.status

    def _say_broken(self, r):
        lines = [("moved_ms", f"the client goes on through worker {r.get('moved_to')}"),
                 ("first_ms", "first byte of the request that was made at once: curl exit "
                              f"{r['first_exit']}"),
                 ("down_ms", f"health checkers: {r.get('said')}; a TCP check still says "
                             f"{'UP' if r.get('tcp_when_down', r['tcp_at_once']) else 'down'}"),
                 ("poll_ms", f"a raw curl on ?wait=50 returns: {r.get('poll_status')}, ETag "
                             f"{r['etag_before']} -> {r.get('etag')}, without {r['node']}"),
                 ("gone_ms", f"{r['node']} is out of the client's own config")]
        for key, text in sorted(lines, key=lambda line: r.get(line[0]) or 1e9):
            if r.get(key) is not None:
                self.timeline.say(f"  {r[key]:5.0f} ms  {text}", GREEN,
                                  self.timeline.began + r["at_s"] + r[key] / 1000)
            else:
                self.timeline.say(f"  NEVER     {text}", RED)

    # ---- (c) the node in use dies ----

    def request(self, name):
        """A new request through the client; the finished transfer."""
        return self._end_request(self._begin_request(name))

    def _begin_request(self, name):
        place = self.place
        transfer = Transfer(place.procs, name, self.fleet.socks_port,
                            place.url(f"quick?{QUICK_BYTES}"), place.content)
        place.note_pids()
        return transfer

    @staticmethod
    def _end_request(transfer):
        with contextlib.suppress(BenchError):  # stop() ends it; its status says so
            wait_until(lambda: transfer.over, NEW_REQUEST_S, f"{transfer.name}'s end")
        transfer.stop()
        return transfer

    def _record(self, prefix):
        """The directory's record of the session whose id begins so, or {}."""
        return next((s for s in self.fleet.sessions() if s["id"].startswith(prefix)), {})

    def kill(self):
        place, fleet, busy = self.place, self.fleet, self.place.busy()
        self.request("curl-before")
        victim = place.path_in_use(busy)
        exit_before = fleet.in_use()
        record = {}
        if exit_before.get("session"):
            record = self._record(exit_before["session"])
        busy = place.busy()
        began = time.monotonic()
        pids = fleet.kill(victim)
        self.timeline.say(f"kill -9 of worker {victim} (pid {', '.join(map(str, pids))}), "
                          "the one in use", BOLD, began)
        new = self.request("curl-after")
        path = place.path_in_use(busy)
        got = new.snapshot()
        report = {
            "worker": victim, "at_s": round(began - self.timeline.began, 3), "path_after": path,
            "curl_exit": new.status, "curl_says": new.says(),
            "stall_ms": ms_since(began, new.times[0]) if new.times else None,
            "whole_ms": new.ended and ms_since(began, new.ended),
            "received": got["received"], "wanted": QUICK_BYTES,
            "equal": got["sha256"] == got["sha256_want"]
            and not any(got[k] for k in ("lost", "doubled", "wrong"))}
        if report["curl_exit"] == 0:
            text = (f"a new curl request answered through worker {path}: first byte "
                    f"{report['stall_ms']:.0f} ms after the kill")
        else:
            text = f"a new curl request FAILED: exit {new.status} ({new.says()})"
        self.timeline.say(text, GREEN if new.status == 0 else RED)
        report["session"] = self._adoption(exit_before, record, began)
        self._start_again(victim, report, began)
        return report

    def _adoption(self, before, record, began):
        """Waits until the directory has the session at another home, under its id."""
        report = {"id_before": record.get("id"), "home_before": record.get("node"),
                  "client_before": before.get("session")}
        after = {}

        def adopted():
            nonlocal after
            after = record and self._record(record["id"])
            return bool(after) and after["node"] != record["node"]
        with contextlib.suppress(BenchError):
            wait_until(adopted, LONG_S, "the session is at another home")
        now = self.fleet.in_use()
        report |= {"ms": ms_since(began), "id_after": after.get("id") if after else None,
                   "home_after": after.get("node") if after else None,
                   "client_after": now.get("session"), "came": now.get("came"),
                   "moved": (self.fleet.status() or {}).get("sessions_moved")}
        good = report["came"] == "adopted" and report["client_after"] == before.get("session")
        self.timeline.say(
            f"session {report['id_before']} of {report['home_before']}: now "
            f"{report['id_after']} at {report['home_after']}, "
            f"{'adopted from Redis' if good else 'NOT adopted'} {report['ms']:.0f} ms after the "
            "kill", GREEN if good else RED)
        return report

    def _start_again(self, victim, report, killed):
        fleet = self.fleet
        with contextlib.suppress(BenchError):
            wait_until(lambda: not fleet.health()[victim]["offered"], LONG_S, "it is out")
            report["out_ms"] = ms_since(killed)
            self.timeline.say(f"worker {victim} is out of all clients' configs after "
                              f"{report['out_ms']:.0f} ms: "
                              f"{fleet.events('node-down', fleet.nodes[victim].full)[-1]['text']}")
        began = time.monotonic()
        self.fleet.start_worker(victim)
        self.place.note_pids()
        wait_until(self.fleet.all_healthy, LONG_S, f"{victim} is healthy again")
        report["back_ms"] = ms_since(began)
        self.timeline.say(f"worker {victim} started again: judged healthy after "
                          f"{report['back_ms']:.0f} ms", GREEN)

    # ---- (d) a user is revoked ----

    def _download(self, name):
        """A paced download that is under way."""
        place = self.place
        transfer = Transfer(place.procs, f"curl-{name}", self.fleet.socks_port,
                            place.url(f"file?{name}"), place.content)
        place.note_pids()
        wait_until(lambda: transfer.received > BEGUN_BYTES or transfer.over, LONG_S,
                   "the download runs")
        return transfer

    def revoke(self):
        transfer = self._download("revoked")
        try:
            began = time.monotonic()
            self.timeline.say(f"sallyportctl revoke --user {USER}, in mid-download", BOLD, began)
            self.fleet.operator.run("revoke", "--user", USER)
            ctl_ms = ms_since(began)
            with contextlib.suppress(BenchError):
                wait_until(lambda: transfer.over, LONG_S, "the download's end")
            ended = transfer.ended
        finally:
            transfer.stop()
        new, served = self._until_refused(began)
        report = {"at_s": round(began - self.timeline.began, 3), "ctl_ms": ctl_ms,
                  "ended_ms": ended and ms_since(began, ended), "curl_exit": transfer.status,
                  "curl_says": transfer.says(), "received": transfer.received,
                  "size": self.place.size, "new_exit": new.status,
                  "new_received": new.received, "served_after": served,
                  "refused_ms": new.ended and ms_since(began, new.ended)}
        if ended:
            self.timeline.say(f"  the download ended after {report['ended_ms']:.0f} ms: curl "
                              f"exit {transfer.status} ({transfer.says()}); a new request "
                              f"after {report['refused_ms'] or 0:.0f} ms: exit {new.status} "
                              f"({new.says()})",
                              GREEN if transfer.status else RED, ended)
        else:
            self.timeline.say("  the download goes on", RED)
        return report

    def _until_refused(self, began):
        """New requests until one is refused: (the last one, how many were served before it).
        A worker may hear of the revocation by the digest of the next second."""
        served = 0
        while True:
            new = self.request("curl-refused")
            if new.status != 0 or time.monotonic() - began > LONG_S:
                return new, served
            served += 1

    # ---- (e) without controller and Redis ----

    def alone(self):
        fleet, say = self.fleet, self.timeline.say
        transfer = self._download("alone")
        untouched = Transfer(self.place.procs, "curl-untouched", None,
                             self.place.url("file?untouched", self.place.bare_port),
                             self.place.content)
        try:
            epoch = fleet.operator.head()[0]
            name = fleet.in_use()["name"]
            began = time.monotonic()
            pids = fleet.kill_proc(fleet.controller) + fleet.kill_proc(fleet.redis)
            say(f"kill -9 of the controller and of Redis (pids {', '.join(map(str, pids))})",
                BOLD, began)
            report = {"node": name, "at_s": round(began - self.timeline.began, 3),
                      "controller_answers": self._controller_answers(),
                      "counted": self._count(name)}
            say(f"  /metrics of worker {name} in the meantime: {report['counted'][0]:,.0f}, then "
                f"{report['counted'][1]:,.0f} bytes to clients", GREEN)
            report["resume"] = self._cut(transfer, untouched, name)
            report["request_exit"] = self.request("curl-alone").status
        finally:
            transfer.stop()
            untouched.stop()
        report["converged"] = self._converge(epoch)
        return report

    def _controller_answers(self):
        try:
            self.fleet.operator.get("/v1/status")
        except OSError:
            return False
        return True

    def _count(self, name):
        """Two looks at one counter."""
        first = self.fleet.worker_metrics(name)[COUNTER]
        time.sleep(LOOK_S)
        return [first, self.fleet.worker_metrics(name)[COUNTER]]

    def _cut(self, transfer, untouched, name):
        """RST to the carriers of the download; what came of it."""
        fleet = self.fleet

        def client():
            return next(e for e in fleet.status()["exits"] if e["name"] == name)
        before, faults = client(), transfer.snapshot()
        began = time.monotonic()
        carriers = self.place.cutter(f"reset {name}")[0]
        with contextlib.suppress(BenchError):
            wait_until(lambda: transfer.over or (transfer.steady(began)
                                                 and client()["resumes"] > before["resumes"]),
                       LONG_S, "the session has resumed")
        ended = time.monotonic()
        after, now = client(), transfer.snapshot()
        report = {
            "carriers": carriers, "resumes": after["resumes"] - before["resumes"],
            "same_session": before["session"] == after["session"] != "",
            "alive": not transfer.over,
            "stall_ms": round(transfer.longest_gap(began, ended), 1),
            "untouched_ms": round(untouched.longest_gap(began, ended), 1),
            "received": now["received"] - faults["received"],
            "equal": now["sha256"] == now["sha256_want"]}
        good = report["alive"] and report["resumes"] > 0
        self.timeline.say(f"  RST to {carriers} carrier(s) of worker {name}: paused "
                          f"{report['stall_ms']:.0f} ms, {report['resumes']} resume(s), session "
                          f"{after['session']} as before", GREEN if good else RED, began)
        return report

    def _converge(self, epoch):
        """Both come back; until all of the fleet is as it should be, by a new change."""
        fleet = self.fleet
        began = time.monotonic()
        fleet.start_redis()
        fleet.start_controller()
        self.place.note_pids()
        self.timeline.say("the controller and an empty Redis are started", BOLD, began)

        def linked():
            nodes = fleet.operator.get("/v1/nodes")["nodes"]
            return (all(n.get("link") == "up" for n in nodes) and fleet.all_healthy()
                    and fleet.operator.get("/v1/status")["synced"])
        report = {"epoch_before": epoch, "workers": len(fleet.nodes)}
        with contextlib.suppress(BenchError):
            wait_until(linked, 2 * LONG_S, "all are linked and healthy")
            report["linked_ms"] = ms_since(began)
            change = self.apply(exit_policy=["allow 127.0.0.0/8"], nodes=[
                {**n, "weight": 50} for n in fleet.file["nodes"]])
            report |= {"acks": len(change["acks_ms"]), "last_ack_ms": change["last_ack_ms"]}
            wait_until(lambda: fleet.status()["revision"]["sequence"] >= change["sequence"],
                       LONG_S, "the client has the change")
            report["client_ms"] = ms_since(began)
        report |= {"ms": ms_since(began), "epoch": fleet.operator.head()[0]}
        self.timeline.say(
            f"  all linked, healthy and in step after {report.get('linked_ms', 0):.0f} ms; the "
            f"next change acknowledged by {report.get('acks', 0)} of {report['workers']}, with the "
            f"client after {report.get('client_ms', 0):.0f} ms; epoch {epoch} -> {report['epoch']}",
            GREEN if "client_ms" in report else RED)
        return report
