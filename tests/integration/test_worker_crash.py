"""The worker's exit is killed, again and again: streams and datagram flows go on."""

import os
import re
import signal

from harness import SLOW, alone, curl_sha256, parse_metrics
from servers import wait_until
import pytest

pytestmark = pytest.mark.skipif(alone(), reason="the thread sanitizer wants no keeper")


def lives(worker):
    return len(re.findall(r'msg="took over"', worker.log))


def test_a_download_outlives_its_worker_killed_twenty_times(lab, origin):
    pair = lab.pair()
    import threading
    out = []
    size = 200_000_000
    t = threading.Thread(target=lambda: out.append(
        curl_sha256(pair.socks, f"http://127.0.0.1:{origin.port}/bytes/{size}")))
    t.start()
    for i in range(20):
        wait_until(lambda: lives(pair.worker) == i, 10, "life")
        pair.worker.kill_exit()
        import time; time.sleep(0.05)
    t.join()
    print(out, re.findall("took over.*", pair.worker.log))
    assert out[0][0] == size
