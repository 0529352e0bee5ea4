"""The tool of `make scale` in small: that it runs to its end, and that its numbers are some."""
import json
import subprocess
import sys

from harness import BUILD, ROOT

SMALL = ["--workers", "20", "--publishes", "1", "--herds", "1", "--exits", "10",
         "--requests", "500", "--polls", "50", "--rounds", "1", "--no-nginx"]


def test_make_scale_measures_workers_and_clients(tmp_path):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, ROOT / "tests/scale/scale.py", "--build", BUILD, "--report", report,
         *SMALL], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    w, = found["workers"]
    assert w["workers"] == w["connect"]["snapshots"] == 20
    assert w["ack"]["count"] == 20 * w["publish"]["publishes"]["median"]
    assert 0 < w["ack"]["p50_ms"] <= w["ack"]["p99_ms"]
    assert w["cut"]["seconds"]["median"] > 0 and w["herd"]["seconds"]["median"] > 0
    clients = found["clients"]
    assert all(clients[status]["ours"]["cpu_us"]["median"] > 0 for status in ("304", "200"))
    assert clients["wake"]["first_ms"]["median"] <= clients["wake"]["last_ms"]["median"]
    assert "20 workers enrolled" in done.stdout and "50 waiting long polls" in done.stdout
