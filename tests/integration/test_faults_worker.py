"""A worker with a signed file for a config, over restarts: what was in force once is known
from its state folder, and nothing older comes back."""

import signal

from faults import disks  # noqa: F401
from harness import SLOW
from servers import wait_until


def start_is_refused(worker):
    worker.spawn()
    assert worker.wait() == 78
    return worker.log.splitlines()[-1]


def test_an_older_signed_config_is_refused_also_after_a_restart(lab):
    w = lab.worker(state_dir="state")
    assert (w.dir / "state" / "revision").read_text() == "1.1\n"
    lab.sign_worker_config(w, seq=5)
    mark = len(w.log)
    w.signal(signal.SIGHUP)
    w.wait_log("new config in force.*sequence=5", after=mark)
    wait_until(lambda: (w.dir / "state" / "revision").read_text() == "1.5\n", 5 * SLOW)
    w.kill()
    lab.sign_worker_config(w, seq=4)
    why = start_is_refused(w)
    assert "its revision 1.4 is older than 1.5, which was in force" in why
    lab.sign_worker_config(w, seq=5)  # the same once more
    w.start()
    lab.sign_worker_config(w, seq=4)
    mark = len(w.log)
    w.signal(signal.SIGHUP)
    w.wait_log("kept the old config.*older than", after=mark)
    w.stop()
    lab.sign_worker_config(w, seq=6)
    w.start()
    assert w.metric("sallyport_worker_config_seq") == 6
    w.stop()
    (w.dir / "state" / "revision").write_text("nonsense")
    assert "not a revision; remove it to accept any" in start_is_refused(w)


def test_a_full_disk_keeps_no_config_from_being_used(lab, disks):  # noqa: F811
    w = lab.worker(start=False, state_dir="state")
    disk = disks(w.dir / "state")
    disk.fill()
    w.start()
    assert "the revision in force is not on the disk" in w.log
    lab.sign_worker_config(w, seq=2)
    w.signal(signal.SIGHUP)
    w.wait_log("new config in force.*sequence=2")
    disk.empty()
    lab.sign_worker_config(w, seq=3)
    w.signal(signal.SIGHUP)
    w.wait_log("new config in force.*sequence=3")
    assert (w.dir / "state" / "revision").read_text() == "1.3\n"
