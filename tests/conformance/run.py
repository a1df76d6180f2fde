#!/usr/bin/env python3
"""Runs an Autobahn-derived suite through the gateway, in both directions, beside a direct run of the same minute.

    tests/conformance/run.py --gateway target/release/pulsegate [--full]

Its verdicts must be those of the direct run, but for the differences that differences.toml explains. Of groups 12
and 13 (compression, which the gateway only relays) the first case of each part runs, and all with --full: each takes more
than five minutes. Prints a line for each
direction and each difference, then `N passed, N failed, N skipped`, counted in cases.
"""
import argparse
import asyncio
import fnmatch
import json
import pathlib
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
from harness.case import PYTHON, REPOSITORY, Failure, Scope  # noqa: E402
from harness.gateway import Gateway, route  # noqa: E402
from harness.peers import Backend  # noqa: E402
from harness.processes import Process, free_port  # noqa: E402

SLOW = [f"{group}.*.{number}" for group in (12, 13) for number in range(2, 19)]
# Pings of the gateway's own would be one more frame that the suite did not script.
QUIET = {"heartbeat__client__ping_interval": "'off'", "heartbeat__upstream__ping_interval": "'off'"}
LIMIT = 1200


async def suite_as_client(scope: Scope, url: str, excluded: list[str], name: str) -> dict:
    """Verdicts of the suite about what it finds at a URL."""
    out = scope.folder / f"{name}.json"
    suite = await Process.start(scope, PYTHON, HERE / "suite.py", "client", url, out, *excluded, name=name)
    await asyncio.wait_for(suite.child.wait(), LIMIT)
    return verdicts(out, suite)


async def suite_as_server(scope: Scope, through_gateway: bool, excluded: list[str], name: str) -> dict:
    """Verdicts of the suite about the client that comes to it."""
    port, out = free_port(), scope.folder / f"{name}.json"
    suite = await Process.start(scope, PYTHON, HERE / "suite.py", "server", port, out, *excluded, name=name)
    await suite.event(30, event="listening")
    url = f"ws://127.0.0.1:{port}"
    if through_gateway:
        gateway = await Gateway.start(scope, route("suite", url, **QUIET), name=f"{name}-gateway")
        url = gateway.url("/suite")
    await Process.start(scope, PYTHON, HERE / "testee.py", url, name="testee")
    await asyncio.wait_for(suite.child.wait(), LIMIT)
    return verdicts(out, suite)


def verdicts(out: pathlib.Path, suite: Process) -> dict:
    if not out.exists():
        raise Failure(f"the suite gave no verdicts: {suite.tail()}")
    return json.loads(out.read_text())


async def directions(scope: Scope, excluded: list[str]):
    """(direction, verdicts of the direct run, verdicts through the gateway), one after the other."""
    for kind in ("websockets", "ws"):
        backend = await Backend.start(scope, kind)
        gateway = await Gateway.start(scope, route("echo", backend.url, **QUIET), name=f"gateway-{kind}")
        direct = await suite_as_client(scope, backend.url, excluded, f"direct-{kind}")
        through = await suite_as_client(scope, gateway.url("/echo"), excluded, f"through-{kind}")
        yield f"client-to-{kind}", direct, through
    direct = await suite_as_server(scope, False, excluded, "direct-server")
    through = await suite_as_server(scope, True, excluded, "through-server")
    yield "server-to-websockets", direct, through


class Allowed:
    """The explained differences."""

    def __init__(self, path: pathlib.Path):
        self.entries = tomllib.loads(path.read_text())["difference"]
        self.seen: set[int] = set()

    def explains(self, direction: str, case: str, direct: list, through: list) -> bool:
        """Whether an entry names this direction, case and verdict."""
        for number, entry in enumerate(self.entries):
            if not any(fnmatch.fnmatch(direction, pattern) for pattern in entry["directions"]):
                continue
            if not any(fnmatch.fnmatch(case, pattern) for pattern in entry["cases"]):
                continue
            if through not in entry["through"]:
                continue
            self.seen.add(number)
            return True
        return False

    def unseen(self) -> list[dict]:
        """Entries that nothing needed this time; races may leave some."""
        return [entry for number, entry in enumerate(self.entries) if number not in self.seen]


def case_key(case: str) -> list[int]:
    return [int(number) for number in case.split(".")]


async def compare(scope: Scope, full: bool) -> tuple[int, int]:
    """(cases that are equal or explained, cases that are not)"""
    allowed = Allowed(HERE / "differences.toml")
    passed = failed = 0
    begun = time.monotonic()
    async for direction, direct, through in directions(scope, [] if full else SLOW):
        explained, unexplained = [], []
        for case in sorted(direct.keys() | through.keys(), key=case_key):
            before, after = direct.get(case, []), through.get(case, [])
            if before != after:
                known = allowed.explains(direction, case, before, after)
                (explained if known else unexplained).append(f"{case}: {before} -> {after}")
        failed += len(unexplained)
        passed += len(direct.keys() | through.keys()) - len(unexplained)
        took, begun = time.monotonic() - begun, time.monotonic()
        print(
            f"{direction}: {len(direct)} cases, {len(explained)} differ as explained, {len(unexplained)} otherwise"
            f"  ({took:.0f} s)",
            flush=True,
        )
        for line in explained:
            print(f"  explained  {line}")
        for line in unexplained:
            print(f"  FAILED     {line}")
    for entry in allowed.unseen():
        print(f"note: no longer seen, or a race that fell the other way: {entry['cases']} in {entry['directions']}")
    return passed, failed


async def run(arguments) -> tuple[int, int]:
    with tempfile.TemporaryDirectory(prefix="pulsegate-conformance.") as folder:
        scope = Scope(arguments.gateway.resolve(), pathlib.Path(folder))
        try:
            return await compare(scope, arguments.full)
        finally:
            await scope.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", type=pathlib.Path, default=REPOSITORY / "target" / "release" / "pulsegate")
    parser.add_argument("--full", action="store_true", help="all of groups 12 and 13: an hour and more")
    arguments = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("not set up: run tests/interop/setup.sh first")
    if not arguments.gateway.exists():
        sys.exit(f"{arguments.gateway} does not exist: run `cargo build --release`, or name another with --gateway")
    passed, failed = asyncio.run(run(arguments))
    print(f"{passed} passed, {failed} failed, 0 skipped", flush=True)
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
