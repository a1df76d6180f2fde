"""Pings are seen at both ends, and keep sessions alive through boxes that cut what is idle."""
import asyncio
import contextlib
import time

from harness.case import Case, Scope, elapse, expect, require, until
from harness.gateway import Gateway, beats, route
from harness.peers import Backend, shared_client

IDLE_LIMIT = 2.0


class IdleBox:
    """A box on the path, as a NAT or a balancer is: it cuts a connection in which nothing moved for `IDLE_LIMIT`."""

    def __init__(self, target: int):
        self.target, self.cuts = target, 0

    async def start(self, scope: Scope) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        scope.ending.callback(server.close)
        return server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        moved = time.monotonic()

        async def pump(source, sink) -> None:
            nonlocal moved
            while data := await source.read(65536):
                moved = time.monotonic()
                sink.write(data)
                await sink.drain()

        async def watch() -> None:
            while (left := moved + IDLE_LIMIT - time.monotonic()) > 0:
                await asyncio.sleep(left)
            self.cuts += 1

        tasks = {asyncio.ensure_future(t) for t in (pump(reader, far_writer), pump(far_reader, writer), watch())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()
        far_writer.transport.abort()


async def boxed(scope: Scope, **options):
    """A gateway with a box on each side; (client, number of the session, boxes, gateway)"""
    backend = await Backend.start(scope, "websockets")
    behind = IdleBox(backend.port)
    gateway = await Gateway.start(scope, route("boxed", f"ws://127.0.0.1:{await behind.start(scope)}", **options))
    before = IdleBox(gateway.ports["ws"])
    port = await before.start(scope)
    client = await shared_client(scope, "ws")
    number = client.begin(url=f"ws://127.0.0.1:{port}/boxed/echo", hold=True, close={"code": 1000, "reason": ""})
    await client.opened(number)
    return client, number, (before, behind)


async def idle_session_survives_boxes(scope: Scope) -> None:
    client, number, boxes = await boxed(scope, **beats("1s", "5s"))
    await elapse(4 * IDLE_LIMIT, lambda: boxes[0].cuts or boxes[1].cuts, "a box cut the session")
    outcome = await client.end(number)
    expect(outcome["texts"], ["still here"], "echo at the end")


async def idle_session_without_heartbeat_is_cut(scope: Scope) -> None:
    """The counter-proof: the boxes do cut."""
    off = {"heartbeat__client__ping_interval": "'off'", "heartbeat__upstream__ping_interval": "'off'"}
    client, number, boxes = await boxed(scope, **off)
    await until(lambda: boxes[0].cuts or boxes[1].cuts, 3 * IDLE_LIMIT, "a box cuts the session")
    await client.outcome(number)


async def pings_reach(scope: Scope, client_kind: str, backend_kind: str) -> None:
    """Every second a ping at the client and at the backend, in a session where nobody sends anything."""
    backend = await Backend.start(scope, backend_kind)
    gateway = await Gateway.start(scope, route("beat", backend.url, **beats("1s", "2s")))
    client = await shared_client(scope, client_kind)
    scenario = {"hold": True, "close": {"code": 1000, "reason": ""}}
    began = time.monotonic()
    number = client.begin(url=gateway.url("/beat/echo", "wss"), ca=gateway.ca, **scenario)
    await client.opened(number)
    for process, wanted in ((client.process, {"id": number}), (backend.process, {})):
        third = await process.event(8, count=3, event="ping", **wanted)
        took = third["at"] - began
        require(took >= 1.7, f"three pings in {took:.2f} s: too many")
    expect((await client.end(number))["texts"], ["still here"], "echo at the end")


async def answers_count(scope: Scope, client_kind: str, backend_kind: str) -> None:
    """With `liveness = "pong"` a session lives on only if both ends really answer."""
    strict = '{ ping_interval = "1s", ping_timeout = "1s", liveness = "pong" }'
    backend = await Backend.start(scope, backend_kind)
    gateway = await Gateway.start(
        scope, route("strict", backend.url, heartbeat__client=strict, heartbeat__upstream=strict)
    )
    client = await shared_client(scope, client_kind)
    number = client.begin(url=gateway.url("/strict/echo"), hold=True, close={"code": 1000, "reason": ""})
    await client.opened(number)
    await elapse(6, lambda: client.process.find(event="outcome", id=number), "the session ended")
    expect((await client.end(number))["texts"], ["still here"], "echo at the end")


def cases() -> list[Case]:
    made = [Case(f"heartbeat/{f.__name__}", f, waits=True) for f in (idle_session_survives_boxes, idle_session_without_heartbeat_is_cut)]
    made += [
        Case(f"heartbeat/pings_reach_{c}_and_{b}", lambda scope, c=c, b=b: pings_reach(scope, c, b), waits=True)
        for c in ("websockets", "ws")
        for b in ("websockets", "ws")
    ]
    made += [
        Case(f"heartbeat/answers_of_{c}_and_{b}", lambda scope, c=c, b=b: answers_count(scope, c, b), waits=True)
        for c, b in (("chromium", "uvicorn"), ("ws", "websockets"), ("websockets", "ws"))
    ]
    return made
