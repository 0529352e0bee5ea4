"""make install and make uninstall, below a DESTDIR."""

import subprocess

from harness import BUILD, ROOT, SLOW


def make(target, destdir):
    subprocess.run(["make", target, f"BUILD={BUILD}", f"DESTDIR={destdir}", "PREFIX=/usr"],
                   cwd=ROOT, check=True, capture_output=True, timeout=120 * SLOW)
    return {str(p.relative_to(destdir)) for p in destdir.rglob("*") if p.is_file()}


def test_install_puts_everything_below_prefix_and_uninstall_removes_exactly_that(tmp_path):
    other = tmp_path / "usr/bin/other"
    other.parent.mkdir(parents=True)
    other.write_text("somebody else's")
    files = make("install", tmp_path)
    assert {"usr/bin/sallyport", "usr/bin/sallyport-worker", "usr/bin/sallyportctl",
            "usr/share/man/man1/sallyport.1", "usr/share/man/man8/sallyport-worker.8",
            "usr/share/doc/sallyport/examples/worker.yaml"} <= files
    assert all(f.startswith("usr/") for f in files)
    units = [tmp_path / f for f in files if f.endswith(".service")]
    assert len(units) >= 2
    for unit in units:  # of programs that are there
        lines = [x for x in unit.read_text().splitlines() if x.startswith("ExecStart=")]
        program = lines[0].split("=", 1)[1].split()[0]
        assert program.lstrip("/") in files, unit
    assert make("uninstall", tmp_path) == {"usr/bin/other"}
