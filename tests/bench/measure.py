"""What is read from the kernel about processes and the machine, and the statistics."""
import os
import statistics
import time

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    """CPU used so far by all threads of the processes, ended threads too.

    The process's own CPU clock (clock_getcpuclockid): the sum of /proc/PID/stat's utime
    and stime, in ns instead of ticks. A process that is gone raises OSError.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def memory_bytes(pids):
    """(pss, rss) of the processes together. Pss counts what they share among them once."""
    total = {"Pss:": 0, "Rss:": 0}
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            for line in f:
                key, _, rest = line.partition(" ")
                if key in total:
                    total[key] += int(rest.split()[0]) * 1024
    return total["Pss:"], total["Rss:"]


def settled(read, tolerance, seconds=5.0, pause=0.1):
    """Reads until two readings in a row differ by no more than tolerance; the last one."""
    deadline = time.monotonic() + seconds
    last = read()
    while time.monotonic() < deadline:
        time.sleep(pause)
        now = read()
        if abs(now - last) <= tolerance:
            return now
        last = now
    return last


def machine_cpu():
    """(busy, stolen) seconds of all cores since boot; busy leaves stolen time out."""
    with open("/proc/stat", encoding="ascii") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = v
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


class Noise:
    """What kept the machine busy beside this run, from here to over().

    over() comes when all processes of the run have ended, so that their CPU is known.
    """

    def __init__(self):
        self.began = time.monotonic(), *machine_cpu(), sum(os.times()[:4])

    def over(self):
        """Shares of all cores: of other processes, and of the hypervisor."""
        now = time.monotonic(), *machine_cpu(), sum(os.times()[:4])
        wall, busy, stolen, own = [b - a for a, b in zip(self.began, now)]
        whole = wall * os.cpu_count()
        return {"foreign_share": max(0.0, busy - own) / whole,
                "stolen_share": stolen / whole, "own_share": own / whole}


def describe_machine():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"kernel": os.uname().release, "cpu": model, "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0]}


def spread(values):
    """Median, extremes and count of a series, or None of an empty one."""
    values = [v for v in values if v is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values),
            "max": max(values), "count": len(values)}


def paired_ratio(a, b):
    """Spread of a/b, round by round, so that what disturbs a whole round cancels."""
    return spread([x / y for x, y in zip(a, b) if x is not None and y])
