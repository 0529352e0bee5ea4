"""The scenarios by name."""

import scene_blocked
import scene_crash
import scene_cut
import scene_death
import scene_stores
import scene_upgrade
from frame import SCENARIOS
from harness import alone

NEEDS_KEEPER = {"crash", "hang", "upgrade"}
NEEDS_NET = {"blocked", "cut", "death", "stores"}


def why_not(function):
    """Why it cannot run here; empty: it can."""
    if function.name in NEEDS_KEEPER and alone():
        return "the thread sanitizer wants no keeper"
    return ""


assert scene_blocked and scene_crash and scene_cut and scene_death and scene_stores and scene_upgrade
__all__ = ["SCENARIOS", "why_not"]
