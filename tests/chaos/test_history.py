"""The history checker finds each kind of fault in histories made for it, and none in good
ones."""
import history
import pytest

APP = {"e": "end", "at": "app", "c": 0, "how": "done", "t": 1.0, "errno": 0, "sent": 100,
       "fin": True, "eof": True, "stall_ms": 1.0, "bytes": 200, "runs": [[0, 200]],
       "n_runs": 1}
DEST = {"e": "end", "at": "dest", "c": 1, "how": "done", "t": 1.0, "errno": 0, "sent": 200,
        "fin": True, "eof": True, "stall_ms": 1.0, "bytes": 100, "runs": [[0, 100]],
        "n_runs": 1}


def verdict(app=None, dest=None, more_dest=(), **how):
    app_events = [{"e": "open", "s": 7, "k": "both", "t": 0.0}]
    if app is not False:
        app_events.append({**APP, "s": 7, **(app or {})})
    dest_events = [] if dest is False else [{**DEST, "s": 7, **(dest or {})}]
    return history.check(app_events, dest_events + [{**DEST, "s": 7, **d} for d in more_dest],
                         **how)


def runs(*parts):
    return {"runs": [list(p) for p in parts], "n_runs": len(parts),
            "bytes": sum(p[1] - p[0] for p in parts)}


def test_a_good_history_has_no_fault_and_its_bytes_are_counted():
    v = verdict()
    assert v.faults == [] and v.verified == 300 and v.finished == v.streams == 1


BAD = {
    "lost in the middle": ("lost", runs((0, 80), (90, 200)), {}, 10),
    "lost at the begin": ("lost", runs((10, 200)), {}, 10),
    "a tail is missing": ("short", runs((0, 150)), {}, 50),
    "doubled": ("doubled", runs((0, 120), (100, 200)), {}, 20),
    "more than was sent": ("doubled", runs((0, 220)), {}, 20),
    "two parts changed places": ("reordered", runs((0, 50), (100, 200), (50, 100)), {}, 50),
    "a wrong byte": ("wrong", runs((0, 50), (0, 1, -1, 0), (51, 200)), {}, 1),
    "bytes that nobody sent, between": ("wrong", runs((0, 50), (0, 9, -1, 0), (50, 191)), {}, 9),
    "another stream's bytes": ("foreign", runs((0, 50), (0, 30, 8, 1), (50, 170)), {}, 30),
    "the other direction's bytes": ("foreign", runs((0, 50), (0, 30, 7, 0), (50, 170)), {}, 30),
    "a reset": ("reset", {"how": "failed", "errno": 104}, {}, 0),
    "a reset at the destination": ("reset", {}, {"how": "failed", "errno": 104}, 0),
    "an end nobody told": ("false-end", {}, {"fin": False}, 0),
    "a stream that hangs": ("unfinished", {"how": "open", "eof": False}, {}, 0),
    "too many runs to keep": ("reordered", {"n_runs": 900}, {}, 0),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found(name):
    kind, app, dest, size = BAD[name]
    found = [f for f in verdict(app, dest).faults if f.kind == kind]
    assert found and found[0].bytes == size


def test_a_wrong_byte_in_its_place_is_not_called_lost_too():
    kinds = {f.kind for f in verdict(runs((0, 50), (0, 1, -1, 0), (51, 200))).faults}
    assert kinds == {"wrong"}


def test_bytes_that_came_up_wrong_are_found_at_the_destination():
    assert verdict({}, runs((0, 40), (60, 100))).count("lost") == 1


def test_a_stream_that_nobody_accepted_is_found():
    assert verdict({}, False).count("nobody") == 1


def test_two_connections_that_answered_are_two_homes():
    other = {"c": 2, "bytes": 100, "sent": 10}
    assert verdict(more_dest=[other], may_redo=True).count("two-homes") == 1


def test_a_dial_made_again_before_an_answer_is_allowed_only_where_it_may_be():
    first = {"c": 0, "sent": 0, "bytes": 30, "runs": [[0, 30]], "fin": False, "how": "failed",
             "errno": 104}
    assert verdict(more_dest=[first], may_redo=True).faults == []
    v = verdict(more_dest=[first])
    assert v.count("two-homes") == 1 and v.redone == 1


def test_a_refused_stream_is_a_fault_unless_it_may_be():
    opened = {"e": "open", "s": 1, "k": "tiny", "t": 0}
    refused = {"e": "refused", "s": 1, "why": "socks", "code": 1, "after_ms": 3.0, "t": 0}
    assert history.check([opened, refused], []).count("refused") == 1
    assert history.check([opened, refused], [], may_refuse=True).faults == []


def test_a_connection_without_a_header_is_a_dial_given_up_and_half_a_header_is_not():
    assert history.check([], [{"e": "stranger", "c": 1, "have": 0}]).faults == []
    assert history.check([], [{"e": "stranger", "c": 1, "have": 5}]).count("wrong") == 1


def epochs(*tries):
    return [{"session": "a", "epoch": n, "accepted": ok, "reason": why} for n, ok, why in tries]


def test_a_stale_epoch_that_was_accepted_is_found():
    good = epochs((1, True, ""), (2, True, ""), (2, False, "stale-epoch"),
                  (1, False, "stale-epoch"), (3, True, ""))
    assert history.check_epochs(good) == []
    assert len(history.check_epochs(epochs((5, True, ""), (5, True, "")))) == 1
    assert len(history.check_epochs(epochs((5, True, ""), (4, True, "")))) == 1
    assert len(history.check_epochs(epochs((5, True, ""), (4, False, "internal")))) == 1


def test_percentiles_of_merged_distributions():
    dist = history.merge([[[1.0, 98], [5.0, 1]], [[9.0, 1]]])
    assert history.percentile(dist, 50) == 1.0
    assert history.percentile(dist, 99) == 5.0
    assert history.percentile(dist, 100) == 9.0
    assert history.percentile([], 99) is None
