#!/usr/bin/env python3
"""Proves the gateway with real foreign clients and backends.

    tests/interop/run.py --gateway target/release/pulsegate [--only NAME ...] [--list] [--keep]

`tests/interop/setup.sh` installs what this needs. NAME is the beginning of a case's name, or a part of it between
asterisks. One line for each case, then `N passed, N failed, N skipped`; exit code 1 when any failed or none ran.
"""
import argparse
import asyncio
import fnmatch
import importlib
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness.case import PYTHON, REPOSITORY, Case, Failure, Scope, Skip  # noqa: E402

THEMES = ["matrix", "handshake", "wire", "heartbeat", "vanish", "backend_loss", "staying", "upstreams", "drain", "admin",
          "documentation", "plain"]
BUSY_AT_ONCE = 4


class Report:
    """Counts, and prints a line as soon as a case is done."""

    def __init__(self):
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    def tell(self, case: Case, result: str, seconds: float, why: str = "") -> None:
        self.counts[result] += 1
        word = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[result]
        print(f"{word:8}{case.name}  ({seconds:.1f} s){': ' + why if why else ''}", flush=True)


def chosen(names: list[str]) -> list[Case]:
    """All cases, or those that are named."""
    cases = [case for theme in THEMES for case in importlib.import_module(f"themes.{theme}").cases()]
    if not names:
        return cases
    return [c for c in cases if any(c.name.startswith(name) or fnmatch.fnmatch(c.name, name) for name in names)]


async def run_case(case: Case, shared: Scope, report: Report) -> None:
    """Runs one case in a scope of its own."""
    scope = Scope(shared.gateway, shared.folder / case.name.replace("/", "-"), shared)
    begun = time.monotonic()
    result, why = "passed", ""
    try:
        try:
            await asyncio.wait_for(case.run(scope), case.limit)
        finally:
            took = time.monotonic() - begun
            await scope.close()
    except Skip as skip:
        result, why = "skipped", str(skip)
    except asyncio.TimeoutError:
        result, why = "failed", f"not done within {case.limit:g} s"
    except Failure as failure:
        result, why = "failed", str(failure)
    except Exception:
        result, why = "failed", traceback.format_exc()
    report.tell(case, result, took, why)


async def run_all(cases: list[Case], shared: Scope) -> Report:
    """The busy cases a few at a time; then those that wait, all side by side."""
    report = Report()
    slots = asyncio.Semaphore(BUSY_AT_ONCE)

    async def busy(case: Case) -> None:
        async with slots:
            await run_case(case, shared, report)

    try:
        await asyncio.gather(*(busy(case) for case in cases if not case.waits))
        await asyncio.gather(*(run_case(case, shared, report) for case in cases if case.waits))
    finally:
        await shared.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=pathlib.Path, default=REPOSITORY / "target" / "release" / "pulsegate")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--keep", action="store_true", help="keep logs and configurations of a good run too")
    arguments = parser.parse_args()
    cases = chosen(arguments.only)
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return
    if not arguments.gateway.exists():
        sys.exit(f"{arguments.gateway} does not exist: run `cargo build --release`, or name another with --gateway")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pulsegate-interop."))
    begun = time.monotonic()
    counts = asyncio.run(run_all(cases, Scope(arguments.gateway.resolve(), folder))).counts
    if counts["failed"] or arguments.keep:
        print(f"logs and configurations: {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{time.monotonic() - begun:.0f} s")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped", flush=True)
    sys.exit(1 if counts["failed"] or not counts["passed"] else 0)


if __name__ == "__main__":
    # The clients and backends need libraries that setup.sh installs; the runner itself needs Python only.
    if not PYTHON.exists():
        sys.exit("not set up: run tests/interop/setup.sh first")
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
