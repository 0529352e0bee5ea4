"""The scenarios by name."""

# Each registers its scenarios.
import scene_blocked  # noqa: F401
import scene_crash  # noqa: F401
import scene_cut  # noqa: F401
import scene_death  # noqa: F401
import scene_partition  # noqa: F401
import scene_stores  # noqa: F401
import scene_upgrade  # noqa: F401
from frame import SCENARIOS
from harness import alone

NEEDS_KEEPER = {"crash", "hang", "upgrade"}
NEEDS_NET = {"blocked", "cut", "death", "partition", "stores"}


def why_not(function):
    """Why it cannot run here; empty: it can."""
    if function.name in NEEDS_KEEPER and alone():
        return "the thread sanitizer wants no keeper"
    return ""


__all__ = ["SCENARIOS", "why_not"]
