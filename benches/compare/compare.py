#!/usr/bin/env python3
"""Measures Pulsegate beside the proxies that this machine has, on the same work, in turn, and prints tables.

    python3 benches/compare/compare.py                                  # everything; takes hours
    python3 benches/compare/compare.py --rounds 1 --cases rtt-64,idle   # a first look
    python3 benches/compare/compare.py --list                           # what there is to run; runs nothing

It installs nothing and needs no root: it builds Pulsegate and the load example, looks for nginx, haproxy, envoy, caddy and
traefik (or takes NGINX=/path and so on; PULSEGATE and LOAD too), and starts each anew for each case, with one worker, in
front of the same backend. The configuration of each is in peers/. CPU time and memory are the proxy's own, from /proc.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cases as work
import tables
from targets import DIRECT, PEERS, REPOSITORY, SUBJECT, Backend, Broken, Process, Target, descriptors, find, sessions_max
from targets import version


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(work.NAMES), help="comma-separated (default: all)")
    parser.add_argument("--targets", help="comma-separated, with `direct` for none in between (default: all there are)")
    parser.add_argument("--rounds", type=int, default=5,
                        help="times each case is measured with each target (default: 5; `scale` once)")
    parser.add_argument("--secs", type=float, default=3, help="seconds of each measurement (default: 3)")
    parser.add_argument("--tls", choices=("no", "yes", "both"), default="both")
    parser.add_argument("--rate", type=float, help="messages a second of `latency` (default: a tenth of what nginx can do)")
    parser.add_argument("--json", metavar="FILE", help="write every single reading there")
    parser.add_argument("--no-build", action="store_true", help="take the programs as they are")
    parser.add_argument("--list", action="store_true", help="tell cases and targets, and run nothing")
    chosen = parser.parse_args()
    chosen.cases = chosen.cases.split(",")
    unknown = [case for case in chosen.cases if case not in work.NAMES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(work.NAMES)}")
    return chosen


def say(text):
    print(text, file=sys.stderr, flush=True)


def seek(wanted):
    """Path of each target; peers that are not on the machine are said, and left out."""
    found = {}
    for name in wanted or [SUBJECT, *PEERS, DIRECT]:
        if name not in (SUBJECT, DIRECT, *PEERS):
            raise Broken(f"no such target: {name}")
        path = None if name == DIRECT else find(name)
        if name == DIRECT or path:
            found[name] = path
        else:
            say(f"{name}: not on this machine, skipped ({name.upper()}=/path/to/{name} would tell where it is)")
    return found


def build(found):
    wanted = []
    if SUBJECT in found and "PULSEGATE" not in os.environ:
        wanted += ["--bin", "pulsegate"]
    if "LOAD" not in os.environ:
        wanted += ["--example", "load"]
    if wanted:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *wanted], cwd=REPOSITORY, check=True)


class Run:
    """One run of everything that was asked for."""

    def __init__(self, chosen, found, folder):
        self.chosen, self.found, self.folder = chosen, found, folder
        self.load = find("load")
        self.names = list(found)
        self.proxies = [name for name in self.names if name != DIRECT]
        self.modes = {"no": [False], "yes": [True], "both": [False, True]}[chosen.tls]
        self.readings = tables.Readings()
        subprocess.run([self.load, "certificate", folder], check=True)

    def in_turn(self, number):
        """The targets, another one first in each round."""
        start = number % max(len(self.names), 1)
        return self.names[start:] + self.names[:start]

    def measure(self, case, tls, name, number, *, label=None, more=(), conns=None, secs=None, workers=1):
        """One reading: fresh backend, fresh target, one load. What goes wrong is told, and is no reading."""
        label, secs = label or case.name, secs if secs is not None else self.chosen.secs
        backend = target = None
        result = {}
        try:
            backend = Backend(self.load, self.folder, split=bool(case.flood))
            target = Target(name, self.found[name], backend, self.folder, workers)
            command, *options = case.arguments(secs, conns)
            if case.flood:
                options += ["--flood", target.url(tls, case.flood)]
            ran = subprocess.run(
                [self.load, command, target.url(tls, case.path), *options, *more, *(["--insecure"] if tls else []),
                 "--pid", str(target.pid), "--quiet", "--json"],
                capture_output=True, text=True, timeout=2 * secs + 120)
            try:
                result = json.loads(ran.stdout)
            except ValueError:
                raise Broken(ran.stderr.strip()[-300:]) from None
            if ran.returncode:
                say(f"  {label} {name}: {ran.stderr.strip()[-200:]} {result.get('failures', '')}")
                result = {"errors": result.get("errors", 1)}
        except (Broken, subprocess.TimeoutExpired) as broken:
            say(f"  {label} {name}: {broken}")
            result = {"errors": 1}
        finally:
            if target:
                target.stop()
            if backend:
                backend.process.stop()
        self.readings.add(label, tls, name, number, result)
        value = tables.figure(case.figure)({"result": result})
        value = f"{value:.4g}" if isinstance(value, (int, float)) else ""
        errors = f"  {result['errors']} errors" if result.get("errors") else ""
        say(f"{number + 1}/{self.chosen.rounds}  {tables.label(label, tls):19} {name:10} {case.unit} {value}{errors}")

    def costs(self, chosen):
        for number in range(self.chosen.rounds):
            for tls in self.modes:
                for case in chosen:
                    conns = min(work.IDLE, sessions_max()) if case.name == "idle" else None
                    for name in self.in_turn(number):
                        if name != DIRECT:
                            self.measure(case, tls, name, number, conns=conns)

    def rate(self, tls):
        """A tenth of what nginx can do, or another peer if there is no nginx."""
        if self.chosen.rate:
            return self.chosen.rate
        name = next((name for name in (*PEERS, SUBJECT) if name in self.found), None)
        if name is None:
            raise Broken("latency needs --rate, where there is no proxy")
        pick = tables.figure("msgs_per_s")
        if not self.readings.values("rtt-64", tls, name, pick):
            self.measure(work.COSTS[0], tls, name, 0)
        able = self.readings.median("rtt-64", tls, name, pick)
        if able is None:
            raise Broken(f"{name} does not work")
        return max(round(able / 10), 1)

    def latency(self):
        rates = {tls: self.rate(tls) for tls in self.modes}
        for number in range(self.chosen.rounds):
            for tls in self.modes:
                for name in self.in_turn(number):
                    if name != DIRECT or not tls:
                        self.measure(work.LATENCY, tls, name, number, more=["--rate", str(rates[tls])])
            if DIRECT not in self.found or False not in self.modes:
                self.found.setdefault(DIRECT, None)
                rate = next(iter(rates.values()))
                self.measure(work.LATENCY, False, DIRECT, number, more=["--rate", str(rate)])
        return rates

    def fair(self):
        for number in range(self.chosen.rounds):
            for tls in self.modes:
                for case in work.FAIR:
                    for name in self.in_turn(number):
                        if name != DIRECT or not tls:
                            self.measure(case, tls, name, number)

    def workers(self):
        for number in range(self.chosen.rounds):
            for tls in self.modes:
                for name in self.in_turn(number):
                    for count in (1, 2):
                        if name != DIRECT:
                            self.measure(work.WORKERS, tls, name, number, label=f"workers-{count}", workers=count)

    def sizes(self):
        return [size for size in work.SCALES if size < sessions_max()] + [sessions_max()]

    def scale(self):
        for tls in self.modes:
            for size in self.sizes():
                for name in self.proxies:
                    self.measure(work.SCALE, tls, name, 0, label=f"scale-{size}", conns=size, secs=work.SCALE_SECS)

    def minutes(self):
        """About as long as it will take: starting and stopping is two seconds."""
        one, rounds, chosen = self.chosen.secs + 3, self.chosen.rounds, self.chosen.cases
        each = sum(one + (4 if case.name == "idle" else 0) for case in work.COSTS if case.name in chosen) * rounds
        each += sum(many * rounds for name, many in (("latency", one), ("fair", 4 * one), ("workers", 2 * one))
                    if name in chosen)
        each += len(self.sizes()) * (work.SCALE_SECS + 8) if "scale" in chosen else 0
        return each * len(self.proxies) * len(self.modes) / 60

    def all(self):
        """Measures and prints, one table after the other."""
        names, modes, readings = self.names, self.modes, self.readings
        say(f"this takes about {self.minutes():.0f} minutes")
        costs = [case for case in work.COSTS if case.name in self.chosen.cases]
        if costs:
            self.costs(costs)
            print(tables.costs(readings, costs, names, modes))
        if "latency" in self.chosen.cases:
            rates = self.latency()
            told = ", ".join(f"{rate:,} messages a second{' with TLS' if tls else ''}" for tls, rate in rates.items())
            print(f"At {told}, each sent at its time; latency counts from that time.\n")
            print(tables.latency(readings, [*self.proxies, DIRECT], modes))
        if "fair" in self.chosen.cases:
            self.fair()
            print(tables.fair(readings, work.FAIR, names, modes))
        if "workers" in self.chosen.cases:
            self.workers()
            print(tables.workers(readings, self.proxies, modes))
            if (os.cpu_count() or 1) < 4:
                print(f"Two workers, the backend and the load share {os.cpu_count()} cores here, so that the ratio of messages "
                      "a second says how the cores were shared, not what a second worker gives. The last column does: "
                      "what two workers would do with a core each, by the CPU time that a message costs them.\n")
        if "scale" in self.chosen.cases:
            self.scale()
            print(tables.scale(readings, self.sizes(), self.proxies, modes))
        for where, count in readings.faults().items():
            print(f"errors: {where}: {count}")
        print(tables.noise(readings, costs, names, modes))


def machine():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, {descriptors():,} descriptors"


def about(found):
    versions = {name: version(name, path) for name, path in found.items() if path and os.access(path, os.X_OK)}
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"machine": machine(), "date": now, "versions": versions}


def tell(facts, seconds=None):
    print(f"machine: {facts['machine']}")
    for name, told in facts["versions"].items():
        print(f"{name}: {told}")
    print(f"date: {facts['date']}" + (f", {seconds / 60:.0f} minutes" if seconds else ""))


def listing(found):
    for name, what in work.NAMES.items():
        print(f"{name:16} {what}")
    print()
    for name, path in found.items():
        built = "" if not path or os.access(path, os.X_OK) else " (not built yet)"
        print(f"{name:16} {path or 'without a proxy'}{built}")
    print()
    tell(about(found))


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    chosen = arguments()
    found = seek(chosen.targets and chosen.targets.split(","))
    if chosen.list:
        listing(found)
        return 0
    signal.signal(signal.SIGTERM, interrupted)
    if not chosen.no_build:
        build(found)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="compare-"))
    begun = time.monotonic()
    run = facts = None
    try:
        facts = about(found)
        run = Run(chosen, found, folder)
        run.all()
        tell(facts, time.monotonic() - begun)
    finally:
        Process.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
        # An interrupted run keeps what it has.
        if chosen.json and run:
            text = json.dumps({**facts, "options": vars(chosen), "readings": run.readings.all}, indent=1)
            pathlib.Path(chosen.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Broken as broken:
        sys.exit(f"compare.py: {broken}")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"compare.py: {failed}")
