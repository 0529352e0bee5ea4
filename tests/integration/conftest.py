import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "common"))

# pylint: disable=wrong-import-position
from harness import Lab
from servers import DnsServer, LoopThread, TcpServer, http_origin


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call" and outcome.get_result().failed:
        item.session.stash_failed = getattr(item.session, "stash_failed", set())
        item.session.stash_failed.add(item.nodeid)


@pytest.fixture(scope="session")
def servers():
    """The thread in which all servers live."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def dns(servers):
    return DnsServer(servers, {"origin.example": ["127.0.0.1"], "dual.example": ["127.0.0.1", "::1"]})


@pytest.fixture(scope="session")
def origin(servers):
    return TcpServer(servers, http_origin, limit=1 << 18)


def _failed(request):
    failed = getattr(request.session, "stash_failed", set())
    return any(x.startswith(request.node.nodeid) for x in failed)


@pytest.fixture
def lab(request, servers, dns, origin):
    """A place for one test."""
    place = Lab(servers, dns, origin.port)
    yield place
    place.close(_failed(request))


@pytest.fixture(scope="module")
def pair(request, servers, dns, origin):
    """One worker and one client for all tests of a file that only use them."""
    place = Lab(servers, dns, origin.port)
    try:
        yield place.pair(worker={"limits": {"opens_per_second": 5000}})
    finally:
        place.close(_failed(request))
