#!/usr/bin/python3
"""Runs the unit tests, replays the fuzz corpora and runs pytest; goes on after a failure.

The last line is "N passed, N failed"; the exit status is 1 if any failed. A unit test is
one function of a cmocka program, a fuzz corpus counts as one test.
"""
import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAP_PLAN = re.compile(rb"^1\.\.(\d+)", re.M)
TAP_OK = re.compile(rb"^ok ", re.M)
TAP_NOT_OK = re.compile(rb"^not ok ", re.M)


class Result:
    def __init__(self, name, passed, failed, seconds, output=b""):
        self.name, self.passed, self.failed = name, passed, failed
        self.seconds, self.output = seconds, output


# Takes a minute of one core, and its time is virtual: it runs beside everything else.
BESIDE = "test_session_sim"


def run(command, timeout, env=None):
    """(status, output) of a command; its whole process group ends with it."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return -signal.SIGKILL, output + f"\nno end after {timeout} s\n".encode()


def why_it_ended(status):
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def unit(path, timeout):
    started = time.monotonic()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP")
    command = ["nice", "-n", "19", path] if path.name == BESIDE else [path]
    status, output = run(command, timeout, env)
    plan = TAP_PLAN.search(output)
    passed, failed = len(TAP_OK.findall(output)), len(TAP_NOT_OK.findall(output))
    if status and not failed:  # crashed, or a sanitizer spoke at the end
        failed = max(1, int(plan.group(1)) - passed if plan else 1)
        output += f"\n{path.name}: {why_it_ended(status)}\n".encode()
    if not status and (not plan or passed != int(plan.group(1))):
        failed += 1
        output += f"\n{path.name}: not all tests of its plan ran\n".encode()
    return Result(path.name, passed, failed, time.monotonic() - started, output)


def fuzz(path, timeout):
    started = time.monotonic()
    name = path.name.removeprefix("fuzz_")
    corpus = ROOT / "tests/fuzz/corpus" / name
    status, output = run([path, corpus], timeout)
    if status:
        output += f"\nreplay of {corpus}: {why_it_ended(status)}\n".encode()
    return Result(f"corpus of {name}", 0 if status else 1, 1 if status else 0,
                  time.monotonic() - started, output)


def pytest(folder, build, args):
    report = build / f"pytest-{folder.name}.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    # Tests wait more than they work: some run side by side.
    command = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider",
               "-n", "3", f"--junitxml={report}", *args, folder]
    status = subprocess.run(command, cwd=ROOT, env=dict(os.environ, SP_BUILD=str(build)),
                            check=False).returncode
    passed = failed = 0
    if report.exists():
        for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
            bad = int(suite.get("failures")) + int(suite.get("errors"))
            failed += bad
            passed += int(suite.get("tests")) - bad - int(suite.get("skipped"))
    if status not in (0, 5) and not failed:  # 5: no tests
        failed = 1
    return Result(folder.name, passed, failed, time.monotonic() - started)


def show(result):
    verdict = "FAIL" if result.failed else "ok"
    if result.failed:
        sys.stdout.flush()
        sys.stdout.buffer.write(result.output)
    print(f"{verdict:4} {result.name} ({result.passed} of "
          f"{result.passed + result.failed}, {result.seconds:.1f} s)", flush=True)


def programs(build, kind):
    """The built programs that still have a source."""
    sources = {"unit": "tests/unit/test_*.c", "fuzz": "tests/fuzz/fuzz_*.c"}[kind]
    folder = {"unit": "tests", "fuzz": "fuzz"}[kind]
    return [build / folder / s.stem for s in sorted(ROOT.glob(sources))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True, type=Path)
    parser.add_argument("--only", choices=["unit", "fuzz", "pytest"])
    parser.add_argument("--timeout", type=int, default=600, help="seconds of one program")
    parser.add_argument("--pytest-args", default="", help="e.g. '-k cover -x'")
    args = parser.parse_args()
    build = args.build.resolve()
    # Telling of libzmq's own threads would also take seconds each, which tests wait for.
    os.environ.setdefault("TSAN_OPTIONS", f"suppressions={ROOT / 'tests/tsan.supp'}:"
                          "ignore_noninstrumented_modules=1")
    wanted = [args.only] if args.only else ["unit", "fuzz", "pytest"]
    results = []
    beside = concurrent.futures.ThreadPoolExecutor(1)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        long = [beside.submit(unit, p, args.timeout)
                for p in programs(build, "unit") if "unit" in wanted and p.name == BESIDE]
        jobs = [pool.submit(function, p, args.timeout)
                for kind, function in (("unit", unit), ("fuzz", fuzz)) if kind in wanted
                for p in programs(build, kind) if p.name != BESIDE]
        for job in concurrent.futures.as_completed(jobs):
            results.append(job.result())
            show(results[-1])
    if "pytest" in wanted:
        for folder in sorted({p.parent for p in ROOT.glob("tests/*/test_*.py")}):
            results.append(pytest(folder, build, args.pytest_args.split()))
            show(results[-1])
    for job in long:
        results.append(job.result())
        show(results[-1])
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    for result in results:
        if result.failed:
            print(f"failed: {result.name}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
