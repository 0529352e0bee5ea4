"""The arithmetic of the bench's report. Run: /usr/bin/python3 tests/bench/test_report.py"""
import unittest

import report


def peer(ours=False, encrypts=True, error=None, **figures):
    """A peer whose figure k is figures[k][n] in round n; None: not measured then."""
    rounds = {"bulk": [], "short": [], "idle": []}
    for n in range(3):
        for phase, found in rounds.items():
            keys = [k for k, c in report.COLUMNS.items() if c[0] == phase]
            row = {k: figures[k][n] for k in keys if k in figures}
            if any(v is not None for v in row.values()):
                found.append({"round": n, "failed": 0} | dict.fromkeys(keys) | row)
    return {"title": "", "encrypts": encrypts, "ours": ours, "error": error,
            "rounds": rounds}


def concluded(**peers):
    data = {"rounds_done": 3, "peers": peers, "skipped": {}, "seconds": 1,
            "options": {"idle": 5000, "size": 1e9},
            "machine": {"cores": 2, "cpu": "", "kernel": ""},
            "noise": {"foreign_share": 0, "stolen_share": 0}}
    report.conclude(data)
    return data


def verdicts(data):
    return [c["met"] for c in data["targets"]["own"]]


class Report(unittest.TestCase):
    def test_ratio_is_paired_by_round_and_not_of_medians(self):
        data = concluded(own=peer(True, server_s_per_gb=[1, 4, 9]),
                         other=peer(server_s_per_gb=[2, 2, 90]))
        r = data["peers"]["own"]["ratios"]["to_best"]["server_s_per_gb"]
        self.assertEqual((r["min"], r["median"], r["max"]), (0.1, 0.5, 2))

    def test_a_round_that_one_of_the_two_lacks_is_left_out_of_the_ratio(self):
        data = concluded(own=peer(True, server_s_per_gb=[1, None, 3]),
                         other=peer(server_s_per_gb=[2, 7, 2]))
        r = data["peers"]["own"]["ratios"]["to_best"]["server_s_per_gb"]
        self.assertEqual((r["median"], r["count"]), (1.0, 2))

    def test_neither_our_own_nor_an_unencrypted_peer_is_the_best_peer(self):
        data = concluded(own=peer(True, mb_per_s=[9] * 3, server_s_per_gb=[1] * 3),
                         bare=peer(encrypts=False, mb_per_s=[8] * 3,
                                   server_s_per_gb=[1] * 3),
                         slow=peer(mb_per_s=[2] * 3, server_s_per_gb=[3] * 3),
                         fast=peer(mb_per_s=[4] * 3, server_s_per_gb=[5] * 3))
        best = data["best_encrypting_peer"]
        self.assertEqual(best["mb_per_s"], "fast")
        self.assertEqual(best["server_s_per_gb"], "slow")

    def test_each_target_is_met_at_its_limit(self):
        data = concluded(
            own=peer(True, server_s_per_gb=[3] * 3, mb_per_s=[150] * 3,
                     server_us_per_flow=[60] * 3, server_kb_per_stream=[4] * 3),
            other=peer(server_s_per_gb=[5] * 3, mb_per_s=[100] * 3),
            raw=peer(encrypts=False, server_s_per_gb=[2.5] * 3))
        self.assertEqual(verdicts(data), [True] * 5)

    def test_each_target_is_missed_beyond_its_limit(self):
        data = concluded(
            own=peer(True, server_s_per_gb=[3.1] * 3, mb_per_s=[149] * 3,
                     server_us_per_flow=[61] * 3, server_kb_per_stream=[4.1] * 3),
            other=peer(server_s_per_gb=[5] * 3, mb_per_s=[100] * 3),
            raw=peer(encrypts=False, server_s_per_gb=[2.5] * 3))
        self.assertEqual(verdicts(data), [False] * 5)
        self.assertEqual(report.text(data).count("NOT MET"), 5)

    def test_what_was_not_measured_is_neither_met_nor_missed(self):
        data = concluded(own=peer(True, error="died"), other=peer(mb_per_s=[1] * 3))
        self.assertEqual(verdicts(data), [None] * 5)
        self.assertEqual(report.text(data).count("not measured"), 5)
        self.assertIn("ERROR: own: died", report.text(data))


if __name__ == "__main__":
    unittest.main()
