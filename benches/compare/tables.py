"""Readings to Markdown: medians over the rounds, ratios to the best peer, and how far the rounds lie apart."""
import statistics
from collections import defaultdict

from targets import DIRECT, PEERS, SUBJECT


class Readings:
    """Every single one is kept: a dict with case, tls, target, round, and the load example's result."""

    def __init__(self):
        self.all = []

    def add(self, case, tls, target, number, result, **more):
        self.all.append({"case": case, "tls": tls, "target": target, "round": number, "result": result, **more})

    def values(self, case, tls, target, pick):
        found = [pick(r) for r in self.all if (r["case"], r["tls"], r["target"]) == (case, tls, target)]
        return [value for value in found if value is not None]

    def median(self, case, tls, target, pick):
        found = self.values(case, tls, target, pick)
        return statistics.median(found) if found else None

    def faults(self):
        """Failures by case and target; what failed altogether has no result."""
        counts = defaultdict(int)
        for reading in self.all:
            wrong = reading["result"].get("errors", 0)
            if wrong:
                counts[label(reading["case"], reading["tls"]) + " " + reading["target"]] += wrong
        return counts


def figure(name):
    """Picks a figure out of a reading, by its path in the result: `calm.latency_us.p99` (names may hold dots)."""

    def pick(reading):
        def descend(value, words):
            if not words:
                return value
            for end in range(len(words), 0, -1):
                key = ".".join(words[:end])
                if isinstance(value, dict) and key in value:
                    return descend(value[key], words[end:])
            return None

        return descend(reading["result"], name.split("."))

    return pick


def label(case, tls):
    return f"{case} TLS" if tls else case


def shown(value):
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def ratios(readings, names, rows):
    """`rows` are (label, unit, {target: value}). The subject's cell has its ratio to the best peer."""
    table = []
    for name, unit, values in rows:
        peers = {peer: values[peer] for peer in PEERS if values.get(peer) is not None}
        best = min(peers, key=peers.get) if peers else None
        cells = []
        for target in names:
            cell = shown(values.get(target))
            if target == SUBJECT and values.get(target) is not None and best and peers[best] > 0:
                cell += f" (**{values[target] / peers[best]:.2f}**)"
            cells.append(cell)
        table.append([name, unit, *cells, best or "–"])
    return markdown(["case", "figure", *names, "best peer"], table)


def costs(readings, cases, names, modes):
    names = [name for name in names if name != DIRECT]
    rows = []
    for tls in modes:
        for case in cases:
            values = {name: readings.median(case.name, tls, name, figure(case.figure)) for name in names}
            if any(value is not None for value in values.values()):
                rows.append((label(case.name, tls), case.unit, values))
    return ratios(readings, names, rows)


def latency(readings, names, modes):
    rows = []
    for tls in modes:
        for quantile in ("p50", "p99", "p99.9"):
            pick = figure(f"latency_us.{quantile}")
            direct = readings.median("latency", False, DIRECT, pick)
            values = {name: readings.median("latency", tls, name, pick) for name in names}
            # Through it less without it; what is left of noise may be below nothing.
            added = {name: None if value is None or direct is None else value - direct for name, value in values.items()}
            added[DIRECT] = direct if not tls else None
            rows.append((label(f"latency {quantile}", tls), "µs added", added))
    return ratios(readings, names, rows)


def fair(readings, cases, names, modes):
    rows = []
    for tls in modes:
        for case in cases:
            for name in names:
                cells = [readings.median(case.name, tls, name, figure(path)) for path in (
                    "calm.latency_us.p50", "calm.latency_us.p99", "flooded.latency_us.p50", "flooded.latency_us.p99",
                    "p99_ratio", "flood_mib_per_s")]
                if cells[0] is not None:
                    rows.append([label(case.name, tls), name, *map(shown, cells)])
    head = ["case", "target", "calm p50 µs", "calm p99 µs", "flooded p50 µs", "flooded p99 µs", "p99 ratio", "flood MiB/s"]
    return markdown(head, rows)


def workers(readings, names, modes):
    rows = []
    for tls in modes:
        for name in names:
            def median(count, path):
                return readings.median(f"workers-{count}", tls, name, figure(path))

            one, two = median(1, "msgs_per_s"), median(2, "msgs_per_s")
            if one and two:
                costs = [median(count, "cpu_us_per_msg") for count in (1, 2)]
                cores = [median(count, "cpu_cores") for count in (1, 2)]
                can = 2 * costs[0] / costs[1] if all(costs) else None
                rows.append([label("workers", tls), name, shown(one), shown(two), f"{two / one:.2f}", *map(shown, cores),
                             *map(shown, costs), shown(can)])
    head = ["case", "target", "1 worker, msg/s", "2 workers, msg/s", "ratio", "cores used by 1", "by 2",
            "CPU µs per message, 1", "2", "ratio if each worker had a core"]
    return markdown(head, rows)


def scale(readings, sizes, names, modes):
    rows = []
    for tls in modes:
        for name in names:
            for unit, path in (("KiB per session", "kib_per_conn"), ("CPU µs per session and second", "idle_cpu_us_per_conn_s")):
                values = [readings.median(f"scale-{size}", tls, name, figure(path)) for size in sizes]
                known = [value for value in values if value is not None]
                if known:
                    # A constant cost per session is linear growth; growth with the number shows in the last column.
                    growth = f"{known[-1] / known[0]:.2f}" if len(known) > 1 and known[0] > 0 else "–"
                    rows.append([label("scale", tls), name, unit, *map(shown, values), growth])
    return markdown(["case", "target", "figure", *(f"{size:,}" for size in sizes), "last / first"], rows)


def noise(readings, cases, names, modes):
    """How far the rounds of one cell lie apart, against their median."""
    spreads = []
    for tls in modes:
        for case in cases:
            for name in names:
                values = readings.values(case.name, tls, name, figure(case.figure))
                if len(values) > 1 and statistics.median(values) > 0:
                    spread = (max(values) - min(values)) / statistics.median(values)
                    spreads.append((spread, f"{label(case.name, tls)} {name}"))
    if not spreads:
        return "noise: unknown, with one round"
    spreads.sort()
    middle, (worst, where) = statistics.median(spread for spread, _ in spreads), spreads[-1]
    return (f"noise: the rounds of a cell lie {middle:.0%} of their median apart in half of the cells, {worst:.0%} at worst "
            f"({where}); a ratio closer to 1 than that says nothing")
