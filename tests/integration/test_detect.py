"""Faults of nodes and of vantages, as a client of the config endpoint sees them: a short form
of `make detect`. The bounds are lax here: the tests run side by side."""

from detectlab import Detection, Trouble, closing
from harness import SLOW


def test_a_node_that_cannot_serve_leaves_the_clients_config_within_seconds(lab):
    with closing(Detection(lab)) as d:
        for fault in d.faults[:4]:
            assert d.run(fault) < 6 * SLOW, fault.what
        assert not d.watch.errors


def test_losses_a_liar_and_a_cut_off_vantage_demote_nobody_but_the_dead(lab):
    with closing(Trouble(lab, seed=7, step_s=2.0)) as t:
        seen = t.run(9 * SLOW)
        assert seen["demotions"] == 0, seen
        assert not seen["node_down_events"] and not seen["answers_without_a_node"], seen
        assert seen["carriers"]["v2"]["cut"] and seen["cut_off_s"] > 2, seen
        assert seen["vantage_events"]["cut-off"], seen
        assert t.find_a_death() < 20 * SLOW
