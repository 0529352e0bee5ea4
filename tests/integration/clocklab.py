"""A fleet whose clocks, all of them, are moved by the test: hours pass in seconds."""

import contextlib
import os
import shutil

from faults import Stream
from fleetlab import FleetLab
from harness import BUILD

HOUR = 3600


class Clock:
    """What the programs started under `for_programs` take for the time, ahead of ours."""

    def __init__(self, folder):
        folder.mkdir()
        self.library = folder / "clockshift.so"
        shutil.copy(BUILD / "tools" / "clockshift.so", self.library)
        self.file = folder / "CLOCK"
        self.ahead = 0
        self.file.write_bytes(bytes(8))

    def set(self, seconds):
        self.ahead = int(seconds)
        with open(self.file, "r+b") as f:  # in place: it is mapped
            f.write(self.ahead.to_bytes(8, "little"))

    def pass_(self, seconds):
        self.set(self.ahead + seconds)

    @contextlib.contextmanager
    def for_programs(self):
        """Programs whose object is made, or that are run, in here have this clock."""
        more = {"LD_PRELOAD": str(self.library)}
        if "address" in BUILD.name:  # its runtime need not be the first library
            more["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        old = {k: os.environ.get(k) for k in more}
        os.environ.update(more)
        try:
            yield
        finally:
            for k, v in old.items():
                if v is None:
                    del os.environ[k]
                else:
                    os.environ[k] = v


class Counted(Stream):
    """An echo stream that knows how many bytes it carried each way."""

    def __init__(self, client, servers):
        super().__init__(client, servers)
        self.carried = 0

    def holds(self):
        good = super().holds()
        self.carried += 4 * good
        return good


class ClockedFleet(FleetLab):
    def __init__(self, lab, **kw):
        self.clock = Clock(lab.dir / "clock")
        with self.clock.for_programs():
            super().__init__(lab, **kw)
            self.start()

    def client(self, name="client", user="alice", **config):
        with self.clock.for_programs():
            return super().client(name, user, **config)
