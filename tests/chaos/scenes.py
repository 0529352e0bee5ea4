"""The scenarios by name."""

import scene_crash
from frame import SCENARIOS
from harness import alone

NEEDS_KEEPER = {"crash", "hang"}


def why_not(function):
    """Why it cannot run here; empty: it can."""
    if function.name in NEEDS_KEEPER and alone():
        return "the thread sanitizer wants no keeper"
    return ""


assert scene_crash
__all__ = ["SCENARIOS", "why_not"]
