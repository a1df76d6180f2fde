"""What a case is, what it is given, and how it waits."""
import asyncio
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Awaitable, Callable

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
TOOLS = REPOSITORY / "target" / "interop"
PYTHON = TOOLS / "venv" / "bin" / "python"
INTEROP = REPOSITORY / "tests" / "interop"


class Skip(Exception):
    """The case cannot run here; its text says what is missing."""


class Failure(AssertionError):
    """What was seen is not what must be seen."""


def expect(actual, wanted, what: str) -> None:
    """Fails unless both are equal."""
    if actual != wanted:
        raise Failure(f"{what}: {actual!r} instead of {wanted!r}")


def require(condition, what: str) -> None:
    """Fails with `what` unless the condition holds."""
    if not condition:
        raise Failure(what)


async def until(condition: Callable[[], object], seconds: float, what: str):
    """Waits until `condition()` is true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.02)
    return value


async def within(seconds: float, awaitable: Awaitable, what: str):
    """Waits for an awaitable with a deadline."""
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise Failure(f"not within {seconds:g} s: {what}") from None


async def elapse(seconds: float, unless: Callable[[], object], what: str) -> None:
    """Lets time pass in which nothing may happen; fails as soon as `unless()` is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        require(not unless(), what)
        await asyncio.sleep(0.05)


@dataclasses.dataclass
class Case:
    """One line of the report."""

    name: str
    run: Callable[["Scope"], Awaitable[None]]
    # Waits for seconds at a time: these run side by side, after the busy ones.
    waits: bool = False
    limit: float = 60


class Scope:
    """What one case, or what several share, has started; all of it ends with the scope."""

    def __init__(self, gateway: pathlib.Path, folder: pathlib.Path, shared: "Scope | None" = None):
        self.gateway = gateway
        self.folder = folder
        self.ending = contextlib.AsyncExitStack()
        self._shared = shared
        self._made: dict[str, asyncio.Task] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def once(self, name: str, make: Callable[["Scope"], Awaitable]):
        """What `make` gives, made once for this scope."""
        if name not in self._made:
            self._made[name] = asyncio.ensure_future(make(self))
        return await asyncio.shield(self._made[name])

    async def shared(self, name: str, make: Callable[["Scope"], Awaitable]):
        """What `make` gives, made once for all cases."""
        return await (self._shared or self).once(name, make)

    async def close(self) -> None:
        """Ends everything that was started in this scope, the youngest first."""
        await self.ending.aclose()
