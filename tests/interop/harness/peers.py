"""Foreign clients and backends: each a process of its own that speaks JSON lines on its standard streams."""
import asyncio
import itertools
import os
import shutil

from .case import INTEROP, PYTHON, TOOLS, Failure, Scope, Skip, within
from .processes import Process, free_port

BACKENDS = ("websockets", "ws", "uvicorn")
CLIENTS = ("websockets", "ws", "chromium")


def node_environment() -> dict[str, str]:
    return {**os.environ, "NODE_MODULES": str(TOOLS / "node" / "node_modules")}


def command(peer: str) -> list[str]:
    """How a program under peers/ is run."""
    path = INTEROP / "peers" / peer
    if peer.endswith(".py"):
        return [str(PYTHON), "-u", str(path)]
    node = shutil.which("node")
    if not node:
        raise Skip("node is not installed")
    return [node, str(path)]


class Backend:
    """An echo backend; its events tell what it saw of each session."""

    def __init__(self, process: Process, host: str, port: int):
        self.process, self.host, self.port = process, host, port

    @classmethod
    async def start(
        cls, scope: Scope, kind: str, *arguments: str, host: str = "127.0.0.1", namespace: str | None = None
    ) -> "Backend":
        peer = {"websockets": "backend_websockets.py", "ws": "backend_ws.mjs", "uvicorn": "backend_uvicorn.py"}.get(kind, kind)
        port = free_port()
        process = await Process.start(
            scope, *command(peer), host, port, *arguments, name=f"backend-{kind}", namespace=namespace, env=node_environment()
        )
        await process.event(20, event="listening")
        return cls(process, host, port)

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}"


class Client:
    """A foreign client that plays scenarios (peers/scenario.mjs describes them)."""

    def __init__(self, kind: str, process: Process):
        self.kind, self.process = kind, process
        self._numbers = itertools.count()
        self.sends_fragments = kind != "chromium"
        self.sets_headers = kind != "chromium"

    @classmethod
    async def start(cls, scope: Scope, kind: str, *, namespace: str | None = None) -> "Client":
        if kind == "chromium" and not shutil.which("chromium"):
            raise Skip("chromium is not installed")
        peer = {"websockets": "client_websockets.py", "ws": "client_ws.mjs", "chromium": "client_chromium.mjs"}[kind]
        process = await Process.start(
            scope, *command(peer), name=f"client-{kind}", namespace=namespace, env=node_environment()
        )
        await process.event(40, event="ready")
        return cls(kind, process)

    def begin(self, **scenario) -> int:
        """Starts a scenario and returns its number; its events carry that number as `id`."""
        number = next(self._numbers)
        self.process.tell({"id": number, **scenario})
        return number

    async def outcome(self, number: int, seconds: float = 30) -> dict:
        """What became of a scenario."""
        return await self.process.event(seconds, event="outcome", id=number)

    async def play(self, seconds: float = 30, **scenario) -> dict:
        return await self.outcome(self.begin(**scenario), seconds)

    async def opened(self, number: int, seconds: float = 10) -> dict:
        """Waits until a scenario's session is open."""
        opened = asyncio.ensure_future(self.process.event(seconds, event="open", id=number))
        refused = asyncio.ensure_future(self.process.event(seconds + 1, event="outcome", id=number))
        done, rest = await asyncio.wait({opened, refused}, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        if opened not in done:
            raise Failure(f"not opened: {refused.result()}")
        return opened.result()

    async def end(self, number: int, seconds: float = 10) -> dict:
        """Has a session that is held open send a message, hear its echo, close with 1000, and tell the outcome."""
        self.process.tell({"finish": number})
        return await self.outcome(number, seconds)


async def shared_client(scope: Scope, kind: str) -> Client:
    """The one client of a kind that all cases in the root namespace use."""
    return await within(60, scope.shared(f"client {kind}", lambda owner: Client.start(owner, kind)), f"client {kind}")
