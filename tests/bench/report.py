"""From the rounds' figures to medians, paired ratios, the targets, and a table."""
import measure

# DESIGN.md section 5. Ratios are against the best encrypting peer of the same run, or
# against the raw loop; a lower figure is better but for throughput.
MAX_S_PER_GB_OF_BEST = 0.6
MAX_S_PER_GB_OF_RAW = 1.2
MIN_MB_PER_S_OF_BEST = 1.5
MAX_US_PER_FLOW = 60
MAX_KB_PER_STREAM = 4
TARGET_STREAMS = 5000

# key of a round's figure -> (phase, heading, format)
COLUMNS = {
    "server_s_per_gb": ("bulk", "server s/GB", "{:.2f}"),
    "client_s_per_gb": ("bulk", "client s/GB", "{:.2f}"),
    "mb_per_s": ("bulk", "MB/s", "{:.0f}"),
    "server_us_per_flow": ("short", "us/flow", "{:.0f}"),
    "p50_ms": ("short", "p50 ms", "{:.1f}"),
    "server_kb_per_stream": ("idle", "KB/idle", "{:.1f}"),
}


def series(data, name, key):
    """A figure of a peer in each round, with None where there is none."""
    rounds = data["peers"][name]["rounds"][COLUMNS[key][0]]
    by_number = {r["round"]: r[key] for r in rounds}
    return [by_number.get(n) for n in range(data["rounds_done"])]


def best_peer(data, key, highest=False):
    """The encrypting peer, not ours, with the best median; None if there is none."""
    found = {n: e["summary"][key]["median"] for n, e in data["peers"].items()
             if e["encrypts"] and not e["ours"] and e["summary"][key]}
    if not found:
        return None
    return (max if highest else min)(found, key=found.get)


def ratio(data, name, key, other):
    if other is None or other not in data["peers"]:
        return None
    return measure.paired_ratio(series(data, name, key), series(data, other, key))


def claim(what, limit, value, at_least=False, note=""):
    """A row of the targets: met is None if it could not be measured."""
    met = None
    if value is not None:
        met = value["median"] >= limit if at_least else value["median"] <= limit
    return {"what": what, "limit": limit, "at_least": at_least, "value": value,
            "met": met, "note": note}


def targets_of(data, name):
    best_cpu = best_peer(data, "server_s_per_gb")
    best_flow = best_peer(data, "mb_per_s", highest=True)
    summary = data["peers"][name]["summary"]
    streams = data["options"]["idle"]
    return [
        claim(f"CPU per GB / {best_cpu}", MAX_S_PER_GB_OF_BEST,
              ratio(data, name, "server_s_per_gb", best_cpu), note="best encrypting peer"),
        claim("CPU per GB / raw", MAX_S_PER_GB_OF_RAW,
              ratio(data, name, "server_s_per_gb", "raw"), note="bare loop"),
        claim(f"throughput / {best_flow}", MIN_MB_PER_S_OF_BEST,
              ratio(data, name, "mb_per_s", best_flow), True, "best encrypting peer"),
        claim("us of CPU per short flow", MAX_US_PER_FLOW, summary["server_us_per_flow"]),
        claim("KB per idle stream", MAX_KB_PER_STREAM, summary["server_kb_per_stream"],
              note="" if streams == TARGET_STREAMS else
              f"at {streams} streams, the target is for {TARGET_STREAMS}"),
    ]


def conclude(data):
    """Adds summary and ratios to each peer, and the targets of our own, to data."""
    for name, entry in data["peers"].items():
        entry["summary"] = {k: measure.spread(series(data, name, k)) for k in COLUMNS}
    best = {k: best_peer(data, k, k == "mb_per_s") for k in COLUMNS}
    data["best_encrypting_peer"] = best
    data["targets"] = {}
    for name, entry in data["peers"].items():
        entry["ratios"] = {
            "to_best": {k: ratio(data, name, k, best[k]) for k in COLUMNS},
            "to_raw": {k: ratio(data, name, k, "raw")
                       for k in ("server_s_per_gb", "mb_per_s")},
        }
        if entry["ours"]:
            data["targets"][name] = targets_of(data, name)


def cell(value, form, span=True):
    if value is None:
        return "-"
    text = form.format(value["median"])
    if not span or value["count"] < 2:
        return text
    return f"{text} ({form.format(value['min'])}..{form.format(value['max'])})"


def grid(rows):
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = zip(row, widths)
        lines.append("  ".join([first[0].ljust(first[1])] +
                               [c.rjust(w) for c, w in rest]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def measured_table(data):
    rows = [["peer"] + [c[1] for c in COLUMNS.values()]]
    for name, entry in data["peers"].items():
        rows.append([name] + [cell(entry["summary"][k], c[2])
                              for k, c in COLUMNS.items()])
    return grid(rows)


def ratio_table(data):
    rows = [["ratio (median of rounds)", "CPU/GB to best", "to raw", "MB/s to best",
             "us/flow to best", "KB/idle to best"]]
    for name, entry in data["peers"].items():
        if not (entry["encrypts"] or entry["ours"]):
            continue
        to = entry["ratios"]["to_best"]
        rows.append([name, cell(to["server_s_per_gb"], "{:.2f}"),
                     cell(entry["ratios"]["to_raw"]["server_s_per_gb"], "{:.2f}"),
                     cell(to["mb_per_s"], "{:.2f}"),
                     cell(to["server_us_per_flow"], "{:.2f}"),
                     cell(to["server_kb_per_stream"], "{:.2f}")])
    return grid(rows)


def target_table(data):
    rows = [["target of DESIGN.md, section 5", "limit", "measured", ""]]
    for name, claims in data["targets"].items():
        for c in claims:
            note = f" ({c['note']})" if c["note"] else ""
            verdict = {True: "met", False: "NOT MET", None: "not measured"}[c["met"]]
            rows.append([f"{name}: {c['what']}{note}",
                         f"{'>=' if c['at_least'] else '<='} {c['limit']}",
                         cell(c["value"], "{:.2f}"), verdict])
    return grid(rows) if len(rows) > 1 else \
        "Targets of DESIGN.md, section 5: not measured, Sallyport is not in this run."


def failures(data):
    """A line for each peer some of whose flows failed within what is allowed."""
    for name, entry in data["peers"].items():
        for phase in ("short", "idle"):
            bad = sum(r["failed"] for r in entry["rounds"][phase])
            if bad:
                yield f"{name}: {bad} flows of all rounds of {phase} failed"


def text(data):
    """The report for a reader; conclude() has been called."""
    opt, noise, machine = data["options"], data["noise"], data["machine"]
    parts = [
        f"{machine['cores']} cores, {machine['cpu']}, Linux {machine['kernel']}; "
        f"{data['rounds_done']} rounds in {data['seconds']:.0f} s",
        f"{opt['size'] / 1e6:.0f} MB a flow, {opt['idle']} idle streams; "
        "median (min..max); server: all processes of the far side",
        f"noise: others used {noise['foreign_share']:.0%} of the machine, the "
        f"hypervisor kept {noise['stolen_share']:.0%}" +
        ("  <- too noisy for absolute figures" if noise["foreign_share"] +
         noise["stolen_share"] > 0.05 else ""),
        "", measured_table(data), "", ratio_table(data), "", target_table(data)]
    names = {n: e["title"] for n, e in data["peers"].items()}
    parts += [""] + [f"{n}: {t}" for n, t in names.items()]
    parts += failures(data)
    parts += [f"left out: {n}: {why}" for n, why in data["skipped"].items()]
    parts += [f"ERROR: {n}: {e['error']}" for n, e in data["peers"].items()
              if e["error"]]
    return "\n".join(parts)
