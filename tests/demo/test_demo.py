#!/usr/bin/python3
"""The demo's own measuring is right: faults in a download are seen and counted, gaps are
measured, and a report of a bad run does not pass. The names are the claims."""
import contextlib
import copy
import os
import socket
import sys
import tempfile
import threading
import types
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[0:0] = [HERE, *(os.path.join(HERE, "..", f) for f in ("bench", "common"))]

# pylint: disable=wrong-import-position
import claims
import content
from place import Cutter
from procs import BenchError, Procs, free_ports
from transfer import Transfer

SIZE = 3_000_000
BUILD = os.environ.get("SP_BUILD", os.path.join(HERE, "..", "..", "build", "release"))


class ContentIsChecked(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "content")
        self.sha256 = content.make(path, SIZE, 7)
        self.content = content.Content(path)
        self.checker = content.Checker(self.content)

    def feed(self, *spans):
        for begin, end in spans:
            self.checker.feed(self.content.map[begin:end])
        return self.checker.faults()

    def test_whole_content_has_no_fault_and_its_sha256(self):
        faults = self.feed((0, 1), (1, 1_234_567), (1_234_567, SIZE))
        self.assertEqual(faults, {"lost": 0, "doubled": 0, "wrong": 0})
        self.assertEqual(self.checker.missing(), 0)
        self.assertEqual(self.checker.prefix(), (self.sha256, self.sha256))

    def test_skipped_bytes_are_counted_as_lost(self):
        self.assertEqual(self.feed((0, 5000), (5123, SIZE))["lost"], 123)
        got, want = self.checker.prefix()
        self.assertNotEqual(got, want)

    def test_bytes_that_come_again_are_counted_as_doubled(self):
        faults = self.feed((0, 2_000_000), (1_999_000, SIZE))
        self.assertEqual(faults, {"lost": 0, "doubled": 1000, "wrong": 0})

    def test_an_altered_byte_is_counted_as_wrong(self):
        data = bytearray(self.content.map[:9000])
        data[4000] ^= 1
        self.checker.feed(bytes(data))
        self.assertGreater(self.checker.wrong, 0)
        self.assertEqual((self.checker.lost, self.checker.doubled), (0, 0))

    def test_a_truncated_download_is_missing_its_rest(self):
        self.feed((0, 1_000_000))
        self.assertEqual(self.checker.missing(), SIZE - 1_000_000)
        got, want = self.checker.prefix()
        self.assertEqual(got, want)
        self.assertNotEqual(got, self.sha256)


class GapsAreMeasured(unittest.TestCase):
    @staticmethod
    def transfer(times, ended=None):
        t = types.SimpleNamespace(times=times, ended=ended, lock=threading.Lock())
        t.longest_gap = types.MethodType(Transfer.longest_gap, t)
        return t

    def test_a_gap_that_touches_the_window_counts_in_whole(self):
        t = self.transfer([0.0, 0.9, 1.4, 1.5, 2.0])
        self.assertAlmostEqual(t.longest_gap(1.0, 1.6), 500)

    def test_gaps_before_and_after_the_window_do_not_count(self):
        t = self.transfer([0.0, 0.9, 1.0, 1.1, 1.2, 1.3, 5.0])
        self.assertAlmostEqual(t.longest_gap(1.05, 1.25), 100)

    def test_a_gap_that_nothing_ends_lasts_to_the_end_of_the_window(self):
        self.assertAlmostEqual(self.transfer([0.0, 1.0]).longest_gap(0.5, 4.0), 3000)

    def test_a_gap_ends_with_the_download(self):
        self.assertAlmostEqual(self.transfer([0.0, 1.0], 2.5).longest_gap(0.5, 4.0), 1500)


class TheCutterTellsProcessesApart(unittest.TestCase):
    """One process is this one, the other a child that connects when told to."""

    CHILD = ("import socket, sys\nfor line in sys.stdin:\n"
             "    s = socket.create_connection(('127.0.0.1', int(line)), 5)\n"
             "    s.sendall(b'x'); s.settimeout(0.3)\n"
             "    try: print(s.recv(1), flush=True)\n"
             "    except TimeoutError: print('silent', flush=True)\n")

    def echo(self, server):
        """Sends back one byte of each connection."""
        def answer(s):
            with contextlib.suppress(OSError):
                s.sendall(s.recv(1))
        with contextlib.suppress(OSError):
            while True:
                self.kept.append(server.accept()[0])
                threading.Thread(target=answer, args=(self.kept[-1],), daemon=True).start()

    def setUp(self):
        self.kept = []
        self.addCleanup(lambda: [s.close() for s in self.kept])
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        threading.Thread(target=self.echo, args=(server,), daemon=True).start()
        self.procs = Procs(folder.name)
        self.addCleanup(self.procs.__exit__)
        self.port, = free_ports(1)
        self.cutter = Cutter(self.procs, os.path.join(BUILD, "tools", "cutter"),
                             {"a": (self.port, server.getsockname()[1])})
        self.child = self.procs.start("child", ["/usr/bin/python3", "-c", self.CHILD], pipes=True)

    def ask_child(self):
        self.child.stdin.write(b"%d\n" % self.port)
        self.child.stdin.flush()
        return self.child.stdout.readline().decode().strip()

    def test_what_one_process_sends_vanishes_and_what_another_sends_arrives(self):
        mine = socket.create_connection(("127.0.0.1", self.port), 5)
        self.kept.append(mine)
        mine.sendall(b"x")
        self.assertEqual(mine.recv(1), b"x")
        self.assertEqual(self.cutter(f"hole a {self.child.pid}"), [0])  # none stands
        self.assertEqual(self.ask_child(), "silent")
        other = socket.create_connection(("127.0.0.1", self.port), 5)
        self.kept.append(other)
        other.sendall(b"y")
        self.assertEqual(other.recv(1), b"y")
        self.assertEqual(self.cutter(f"hole a {os.getpid()}"), [2])  # `mine` and `other`
        self.assertEqual(self.ask_child(), "b'x'")
        self.cutter("thaw a")
        self.assertEqual(self.ask_child(), "b'x'")

    def test_a_process_that_cannot_be_looked_at_is_said(self):
        with self.assertRaises(BenchError):
            self.cutter("hole a 99999999")


def good_report():
    def event(kind):
        return {"kind": kind, "carriers": 1, "peer_connections": 1, "untouched_ms": 5.0,
                "origin": {"requests": 1, "ports": [7], "established": True, "inode": 8},
                "sallyport": {"stall_ms": 20.0, "alive": True, "received": 1},
                "shadowsocks": {"alive": False, "curl_exit": 18}}
    dns = {"asked": 9, "answered": 9, "unanswered": 0, "asked_again_by_dig": 0,
           "later_than_1_s": 0, "ms_median": 10.0, "ms_max": 20.0}
    crashes = [event("crash") | {"exit_process": {"pid": n, "pid_after": n + 1, "peer_pid": 9,
                                                  "back_ms": 20.0}} for n in range(10)]
    return {**good_fleet(dns), "size": 5, "sha256": "aa", "seconds": 50.0,
            "events": [event("reset") for _ in range(10)] + [event("freeze"), event("apply")]
            + crashes + good_installs(event),
            "upload": {"curl_exit": 0, "requests": 1, "sent": 3, "sha256": "bb",
                       "sha256_of_origin": "bb", "at_origin": [
                           {"size": 3, "sha256": "bb", "lost": 0, "doubled": 0, "wrong": 0}]},
            "sallyport": [{"curl_exit": 0, "received": 5, "sha256": "aa", "lost": 0,
                           "doubled": 0, "wrong": 0}],
            "client": {"exits": [{"resumes": 21, "homes_lost": 0}]},
            "requests": [{"path": "/file?sallyport"}], "dns": dns,
            }


def good_installs(event):
    """Events 22 to 24."""
    broken = {"status": 70, "said": "rolled back: signal 6", "version": "1", "version_after": "1",
              "pid": 1, "pid_after": 2}
    new = {"status": 0, "said": "upgraded", "version": "1", "version_after": "2", "pid": 1,
           "pid_after": 2}
    origin = {"requests": 1, "ports": [7], "established": True, "inode": 8}
    blocked = {"home": "a", "via": "b", "session": "ab", "session_via": "ab", "carriers": 1,
               "relay_bytes": 5_000_000, "health": "healthy", "at_origin": origin,
               "direct_ms": 20.0}
    return [event("rollback") | {"installed": broken}, event("upgrade") | {"installed": new},
            event("blocked") | {"blocked": blocked}]


def good_fleet(dns):
    return {
        "apply": {"ctl_exit": 0, "ctl_ms": 9.0, "sequence": 8, "sequence_before": 7, "workers": 2,
                  "acks_ms": {"a": 8.0, "b": 9.0}, "last_ack_ms": 9.0},
        "broken": {"node": "c", "offered_before": True, "etag_before": "x", "etag": "y",
                   "tcp_at_once": True, "tcp_when_down": True, "poll_status": 200,
                   "said": "cause dead, rung carrier, reason timeout", "moved_to": "a",
                   "moved_ms": 900.0, "down_ms": 2000.0, "poll_ms": 2010.0, "gone_ms": 2020.0,
                   "back_ms": 1000.0, "request_exit": 0, "first_exit": 0, "first_ms": 990.0},
        "kill": {"curl_exit": 0, "equal": True, "received": 1, "wanted": 1, "worker": "a",
                 "path_after": "b", "stall_ms": 90.0, "dns_after": dict(dns), "out_ms": 1500.0,
                 "back_ms": 1000.0,
                 "session": {"id_before": "ab12", "id_after": "ab12", "client_before": "ab",
                             "client_after": "ab", "came": "adopted", "home_before": "a/0",
                             "home_after": "b/0", "ms": 40.0}},
        "alone": {"controller_answers": False, "counted": [5.0, 6.0], "request_exit": 0,
                  "resume": {"carriers": 1, "resumes": 1, "same_session": True, "alive": True,
                             "stall_ms": 20.0, "untouched_ms": 5.0, "received": 1,
                             "equal": True},
                  "converged": {"workers": 2, "acks": 2, "linked_ms": 900.0, "epoch_before": 1,
                                "epoch": 2, "client_ms": 990.0}},
        "revoke": {"ended_ms": 20.0, "curl_exit": 56, "received": 4, "size": 5, "new_exit": 97,
                   "new_received": 0, "refused_ms": 40.0, "served_after": 0}}


def holds(report):
    return all(ok for _, ok, _ in claims.judge(report))


class ClaimsCanFail(unittest.TestCase):
    SPOILT = [
        (("sallyport", 0, "curl_exit"), 18), (("sallyport", 0, "received"), 4),
        (("sallyport", 0, "sha256"), "ab"), (("sallyport", 0, "lost"), 1),
        (("sallyport", 0, "doubled"), 1), (("events", 3, "carriers"), 0),
        (("events", 3, "sallyport", "stall_ms"), 9000.0),
        (("events", 3, "sallyport", "alive"), False),
        (("events", 10, "sallyport", "stall_ms"), 9000.0),
        (("events", 3, "shadowsocks", "alive"), True),
        (("events", 3, "shadowsocks", "curl_exit"), 0),
        (("client", "exits", 0, "resumes"), 20),
        (("events", 12, "exit_process", "pid"), 1), (("events", 12, "exit_process", "pid"), None),
        (("events", 12, "exit_process", "pid_after"), None),
        (("events", 12, "exit_process", "pid_after"), 0),
        (("events", 12, "exit_process", "peer_pid"), None),
        (("events", 12, "sallyport", "received"), 0),
        (("events", 12, "sallyport", "stall_ms"), 900.0),
        (("events", 12, "sallyport", "alive"), False),
        (("events", 12, "shadowsocks", "alive"), True),
        (("events", 12, "origin", "requests"), 2), (("events", 12, "origin", "ports"), [9]),
        (("events", 12, "origin", "ports"), [7, 9]), (("events", 12, "origin", "inode"), 9),
        (("events", 12, "origin", "established"), False),
        (("upload", "curl_exit"), 56), (("upload", "requests"), 2), (("upload", "at_origin"), []),
        (("upload", "sent"), 4), (("upload", "sha256_of_origin"), ""),
        (("upload", "at_origin", 0, "sha256"), "cc"), (("upload", "at_origin", 0, "lost"), 1),
        (("upload", "at_origin", 0, "wrong"), 1), (("seconds",), 91.0),
        (("events", 22, "installed", "status"), 0), (("events", 22, "installed", "said"), "no"),
        (("events", 22, "installed", "version_after"), "2"),
        (("events", 22, "sallyport", "alive"), False),
        (("events", 22, "sallyport", "stall_ms"), 9000.0),
        (("events", 23, "installed", "status"), 70), (("events", 23, "installed", "pid_after"), 1),
        (("events", 23, "installed", "version_after"), "1"),
        (("events", 23, "installed", "version_after"), ""),
        (("events", 23, "sallyport", "alive"), False),
        (("events", 23, "sallyport", "stall_ms"), 9000.0), (("events", 23, "kind"), "apply"),
        (("events", 24, "kind"), "apply"), (("events", 24, "sallyport", "alive"), False),
        (("events", 24, "sallyport", "stall_ms"), 9000.0),
        (("events", 24, "blocked", "carriers"), 0), (("events", 24, "blocked", "via"), ""),
        (("events", 24, "blocked", "via"), "a"), (("events", 24, "blocked", "relay_bytes"), 5),
        (("events", 24, "blocked", "session_via"), "cd"),
        (("events", 24, "blocked", "health"), "down"),
        (("events", 24, "blocked", "at_origin"), {}),
        (("events", 24, "blocked", "at_origin", "ports"), [9]),
        (("events", 24, "blocked", "at_origin", "inode"), 9),
        (("events", 24, "blocked", "at_origin", "requests"), 2),
        (("events", 24, "blocked", "at_origin", "established"), False),
        (("events", 24, "blocked", "direct_ms"), None),
        (("events", 24, "blocked", "direct_ms"), 90000.0),
        (("client", "exits", 0, "homes_lost"), 1), (("client",), None),
        (("dns", "unanswered"), 1), (("dns", "asked"), 0),
        (("kill", "curl_exit"), 7), (("kill", "equal"), False),
        (("kill", "path_after"), "a"), (("kill", "stall_ms"), None),
        (("kill", "stall_ms"), 9000.0), (("kill", "dns_after", "unanswered"), 1),
        (("apply", "ctl_exit"), 1), (("apply", "sequence"), 7), (("apply", "acks_ms"), {"a": 1.0}),
        (("apply", "last_ack_ms"), 9000.0), (("apply", "last_ack_ms"), None),
        (("events", 11, "sallyport", "alive"), False),
        (("broken", "tcp_at_once"), False), (("broken", "tcp_when_down"), False),
        (("broken", "said"), "rung connect, reason refused"), (("broken", "said"), ""),
        (("broken", "down_ms"), None), (("broken", "down_ms"), 9000.0),
        (("broken", "offered_before"), False), (("broken", "etag"), "x"),
        (("broken", "etag"), None), (("broken", "poll_status"), 304),
        (("broken", "poll_ms"), None), (("broken", "poll_ms"), 4000.0),
        (("broken", "moved_ms"), None), (("broken", "moved_to"), "c"),
        (("broken", "gone_ms"), None), (("broken", "request_exit"), 7),
        (("broken", "first_exit"), 52), (("broken", "first_ms"), None),
        (("broken", "first_ms"), 9000.0),
        (("broken", "back_ms"), None),
        (("kill", "session", "id_before"), None), (("kill", "session", "id_after"), "cd34"),
        (("kill", "session", "client_after"), "cd"), (("kill", "session", "came"), "fresh"),
        (("kill", "session", "home_after"), "a/0"), (("kill", "session", "home_after"), None),
        (("kill", "session", "ms"), 9000.0), (("kill", "out_ms"), None),
        (("kill", "out_ms"), 9000.0), (("kill", "back_ms"), None),
        (("alone", "controller_answers"), True), (("alone", "counted"), [5.0, 5.0]),
        (("alone", "request_exit"), 97), (("alone", "resume", "carriers"), 0),
        (("alone", "resume", "resumes"), 0), (("alone", "resume", "same_session"), False),
        (("alone", "resume", "alive"), False), (("alone", "resume", "equal"), False),
        (("alone", "resume", "received"), 0), (("alone", "resume", "stall_ms"), 9000.0),
        (("alone", "converged", "linked_ms"), None), (("alone", "converged", "acks"), 1),
        (("alone", "converged", "client_ms"), None), (("alone", "converged", "epoch"), 1),
        (("revoke", "ended_ms"), None), (("revoke", "ended_ms"), 9000.0),
        (("revoke", "curl_exit"), 0), (("revoke", "received"), 5), (("revoke", "new_exit"), 0),
        (("revoke", "new_received"), 1), (("revoke", "refused_ms"), None),
        (("revoke", "refused_ms"), 9000.0),
    ]

    def test_a_good_report_passes(self):
        self.assertTrue(holds(good_report()))

    def test_each_spoilt_measurement_fails_a_claim(self):
        for path, value in self.SPOILT:
            with self.subTest(path=path, value=value):
                report = copy.deepcopy(good_report())
                at = report
                for key in path[:-1]:
                    at = at[key]
                at[path[-1]] = value
                self.assertFalse(holds(report))

    def test_a_pause_of_the_whole_machine_is_not_the_tunnels(self):
        report = good_report()
        report["events"][3]["sallyport"]["stall_ms"] = 400.0
        self.assertFalse(holds(report))
        report["events"][3]["untouched_ms"] = 390.0
        self.assertTrue(holds(report))

    def test_a_second_request_for_the_file_fails_a_claim(self):
        report = good_report()
        report["requests"] *= 2
        self.assertFalse(holds(report))


if __name__ == "__main__":
    unittest.main()
