"""The scenarios of `make chaos` in seconds: few streams, every byte checked, times told but
not judged. tests/chaos says what each does."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "chaos"))

# pylint: disable=wrong-import-position
import scenes
from frame import Run
from linklab import why_not as no_net


@pytest.mark.parametrize("name", scenes.SCENARIOS)
def test_every_byte_of_every_stream_survives(name, lab):
    function = scenes.SCENARIOS[name]
    reason = scenes.why_not(function) or (no_net() if name in scenes.NEEDS_NET else "")
    if reason:
        pytest.skip(reason)
    run = Run(name, lab, seed=7, seconds=function.short, small=True)
    try:
        function(run)
    finally:
        run.close()
    broken = [m for m in run.measures if not m.ok()]
    assert run.ok(), (broken, run.claims, run.facts)
