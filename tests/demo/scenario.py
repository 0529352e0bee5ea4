"""What happens in the demo, in order, and what is done to carriers; what is done to the fleet:
operations.py. It only does and measures; claims.py and fleetclaims.py judge."""
import time

from claims import RESETS
from lookups import Lookups
from place import ADDRESS, ZONE
from operations import Operations
from procs import wait_until
from survival import FILE, Survival
from survivalclaims import KILLS
from timeline import GREEN, GREY, RED, grouped
from transfer import Transfer

EVERY_S = 0.85       # from one event to the next, at least
SETTLE_S = 8         # an event whose pause is not over then has ended the download
FIRST_S = 1.0        # quiet download before the first event: what a pause is without one


class Downloads:
    """Downloads of /file through one proxy, one after the other: where one dies a new one is
    begun, so that each event meets one that lives."""

    def __init__(self, place, name, socks_port, port=0):
        self.place, self.name, self.socks_port, self.port = place, name, socks_port, port
        self.all = []
        self.begin()

    @property
    def now(self):
        return self.all[-1]

    def begin(self):
        name = f"curl-{self.name}-{len(self.all) + 1}"
        self.all.append(Transfer(self.place.procs, name, self.socks_port,
                                 self.place.url(f"file?{self.name}", self.port),
                                 self.place.content))
        self.place.note_pids()

    def stop(self):
        for transfer in self.all:
            transfer.stop()

    def describe(self):
        return [{"curl_exit": t.status, "curl_says": t.says(),
                 "seconds": round((t.ended or time.monotonic()) - t.began, 3),
                 "missing": t.checker.missing(), **t.snapshot()} for t in self.all]


class Scenario:
    def __init__(self, place, timeline):
        self.place, self.timeline = place, timeline
        self.events = []
        self.operations = Operations(place, timeline)
        self.survival = Survival(place, timeline)
        self.lookups = Lookups(place.bridge_port, ZONE, ADDRESS)
        self.report = {"events": self.events}

    def run(self):
        self.lookups.start()
        try:
            self._downloads()
            self.report["alone"] = self.operations.alone()
        finally:
            self.lookups.stop()
        self.report["revoke"] = self.operations.revoke()
        self.report["dns"] = self.lookups.summary()
        self.report["kill"]["dns_after"] = self.lookups.summary(
            since=self.timeline.began + self.report["kill"]["at_s"])
        self.report["dns"]["asked_again_at_s"] = [
            round(when - self.timeline.began, 2)
            for when, _, tries, _ in self.lookups.results if tries > 1]
        self.report["requests"] = self.place.requests()
        return self.report

    # ---- while the download runs ----

    def _downloads(self):
        place = self.place
        self.ours = Downloads(place, "sallyport", place.fleet.socks_port)
        self.theirs = Downloads(place, "shadowsocks", place.shadowsocks.socks_port)
        self.bare = Downloads(place, "bare", None, place.bare_port)
        try:
            self.timeline.say(f"curl downloads {grouped(place.size)} bytes through sallyport, "
                              "and beside it through shadowsocks-libev; dig asks every 200 ms")
            self._event("nothing", 0, None, FIRST_S)
            self._event("apply", 0, self._apply)
            for number in range(1, RESETS + 1):
                self._event("reset", number, self._cut("reset"))
            self._crashes()
            self._event("rollback", 0, self.survival.rollback)
            self._event("upgrade", 0, self.survival.upgrade)
            self._event("blocked", 0, self._blocked)
            self._event("freeze", 0, self._cut("freeze"))
            self.place.hurry("sallyport")
            wait_until(lambda: self.ours.now.over, place.size / place.rate + SETTLE_S,
                       "the download's end")
            self.report["client"] = place.fleet.status()
            self._ours_over()
            # while the frozen download of the peer still hangs
            self.report["broken"] = self.operations.broken()
            self._theirs_over()
            self.report["kill"] = self.operations.kill()
        finally:
            self.survival.stop()
            self.ours.stop()
            self.theirs.stop()
            self.bare.stop()

    def _crashes(self):
        """The exit process is killed under the download, and under an upload beside it."""
        self.survival.begin_upload()
        for number in range(1, KILLS + 1):
            self._event("crash", number, self.survival.crash)
        self.report["upload"] = self.survival.end_upload()

    def _cut(self, command):
        """What does that to a path, and to the peer's."""
        def cut(path):
            return {"carriers": self.place.cutter(f"{command} {path}")[0],
                    "peer_connections": self.place.cutter(f"{command} ss")[0]}
        return cut

    def _blocked(self, path):
        """That worker's address, and the path of shadowsocks for as long."""
        peer = self.place.cutter("hole ss")[0]
        try:
            return {"peer_connections": peer, **self.survival.block(path)}
        finally:
            self.place.cutter("thaw ss")

    def _apply(self, _path):
        """A rule more in the exit policy, of every worker."""
        self.report["apply"] = self.operations.apply(
            exit_policy=["deny 192.0.2.0/24", "allow 127.0.0.0/8"])
        return {"config": self.report["apply"]}

    def _event(self, kind, number, action, lasts=EVERY_S):
        """One event, at both, and what the two downloads saw of it."""
        ours, theirs = self.ours.now, self.theirs.now
        wait_until(lambda: all(d.now.received for d in (self.ours, self.theirs, self.bare)),
                   SETTLE_S, "all downloads run")
        before, theirs_before = ours.snapshot(), theirs.received
        busy = self.place.busy()
        time.sleep(0.1)
        path, hurt = self.place.path_in_use(busy), {}
        began = time.monotonic()
        if action:
            hurt = action(path)
        time.sleep(lasts)
        while time.monotonic() < began + SETTLE_S and not (ours.over or ours.steady(began)):
            time.sleep(0.02)
        ended = time.monotonic()
        after = ours.snapshot()
        untouched = self.bare.now.longest_gap(began, ended)
        event = {
            "event": f"{kind} {number}" if number else kind, "kind": kind, "path": path, **hurt,
            "at_s": round(began - self.timeline.began, 3), "untouched_ms": round(untouched, 1),
            "origin": self.place.at_origin(FILE),
            "sallyport": {
                "stall_ms": round(ours.longest_gap(began, ended), 1), "alive": not ours.over,
                **{k: after[k] - before[k] for k in ("lost", "doubled", "wrong", "received")},
                "sha256_so_far_equal": after["sha256"] == after["sha256_want"]},
            "shadowsocks": self._peer_event(theirs, theirs_before, began, ended)}
        self.events.append(event)
        self.timeline.say(*_event_line(event), at=began)
        for downloads in (self.ours, self.theirs, self.bare):
            if downloads.now.over:
                downloads.begin()

    def _peer_event(self, theirs, received_before, began, ended):
        fine = not theirs.over and theirs.steady(began)
        return {"stall_ms": round(theirs.longest_gap(began, ended), 1), "alive": fine,
                "hangs": not theirs.over and not fine, "curl_exit": theirs.status,
                "curl_says": theirs.says() if theirs.over else None,
                "received": theirs.received - received_before,
                "lost": 0 if fine else theirs.checker.missing()}

    def _ours_over(self):
        ours = self.ours.now
        self.report["sallyport"] = self.ours.describe()
        good = self.report["sallyport"][-1]["sha256"] == self.place.sha256
        self.timeline.say(f"sallyport: curl exit {ours.status}, {grouped(ours.received)} "
                          f"bytes, SHA-256 {'as it should be' if good else 'WRONG'}",
                          GREEN if good and ours.status == 0 else RED, ours.ended)

    def _theirs_over(self):
        """Waits until curl itself has given the frozen download up."""
        theirs = self.theirs.now
        wait_until(lambda: theirs.over, self.place.size / self.place.rate + SETTLE_S,
                   "the peer's last download")
        last = self.events[-1]["shadowsocks"]
        if last["hangs"]:
            last |= {"hangs": False, "curl_exit": theirs.status, "curl_says": theirs.says(),
                     "stall_ms": round(theirs.longest_gap(theirs.times[-1], theirs.ended), 1)}
        self.report["shadowsocks"] = self.theirs.describe()
        self.timeline.say(f"shadowsocks: curl exit {theirs.status} ({theirs.says()}), "
                          f"{len(self.theirs.all)} downloads begun, "
                          f"{sum(t.status == 0 for t in self.theirs.all)} came whole",
                          GREY, theirs.ended)


def _event_line(event):
    """(text, colour) of the timeline."""
    ours, theirs = event["sallyport"], event["shadowsocks"]
    carriers = f"{event.get('carriers')} carrier(s) of worker {event['path']}"
    applied, exits = event.get("config", {}), event.get("exit_process", {})
    new, blocked = event.get("installed", {}), event.get("blocked", {})
    what = {"nothing": "undisturbed",
            "apply": f"apply    in force on {len(applied.get('acks_ms', []))} workers after "
                     f"{applied.get('last_ack_ms') or 0:.0f} ms",
            "reset": f"{event['event']:8} RST to {carriers}",
            "crash": f"{event['event']:8} kill -9 of exit {event['path']}: pid {exits.get('pid')} -> "
                     f"{exits.get('pid_after')}",
            "rollback": f"rollback {event['path']} is given a broken program: status "
                        f"{new.get('status')}",
            "upgrade": f"upgrade  {event['path']} now runs {new.get('version_after')}",
            "blocked": f"blocked  the address of {event['path']}: through "
                       f"{blocked.get('via')}",
            "freeze": f"freeze   {carriers} go silent"}[event["kind"]]
    us = f"paused {ours['stall_ms']:.0f} ms" if ours["alive"] else "DIED"
    them = ("goes on" if theirs["alive"] else
            "hangs" if theirs["hangs"] else f"died ({theirs['curl_says']})")
    return (f"{what:48}  sallyport: {us:15}  shadowsocks: {them}",
            GREEN if ours["alive"] else RED)
