"""A backend dies or freezes: its client gets a close frame and a code, not 1006."""
import asyncio
import signal
import time

from harness.case import Case, Failure, Scope, elapse, expect, require, within
from harness.frames import BINARY, PONG, RawBackend, connect, frame_bytes
from harness.gateway import Gateway, beats, detection_bound, route
from harness.peers import CLIENTS, Backend, shared_client

SLACK = 1.0


async def killed(scope: Scope, backend_kind: str, client_kind: str) -> None:
    """kill -9: 1012 at once, told in full."""
    backend = await Backend.start(scope, backend_kind)
    gateway = await Gateway.start(scope, route("lost", backend.url))
    client = await shared_client(scope, client_kind)
    number = client.begin(url=gateway.url("/lost/echo"), receive=1)
    await client.opened(number)
    session = (await backend.process.event(5, event="open"))["session"]
    await backend.process.kill()
    outcome = await client.outcome(number, 5)
    expect(outcome["close"], {"code": 1012, "reason": "upstream connection lost"}, "close at the client")
    expect((await gateway.verdict(session))["reason"], "upstream_gone", "reason of the verdict")


async def killed_inside_a_frame(scope: Scope) -> None:
    """Half a frame has crossed: nothing true can be said after it, so the client gets a reset."""
    backend = await Backend.start(scope, "half_frame.py")
    gateway = await Gateway.start(scope, route("half", backend.url))
    client = await connect(scope, gateway.ports["ws"], "/half", ["X-Request-Id: half-frame"])
    await backend.process.event(5, event="half")
    await within(5, client.reader.readexactly(104), "the first half")
    await backend.process.kill()
    try:
        rest = await within(15, client.reader.read(), "a reset")
    except ConnectionResetError:
        pass
    else:
        raise Failure(f"the client got {rest!r} and a FIN instead of a reset")
    verdict = await gateway.verdict("half-frame")
    expect((verdict["reason"], verdict.get("client.cut")), ("upstream_gone", True), "reason of the verdict, and its cut")


async def silent_inside_a_frame(scope: Scope) -> None:
    """A backend that answered a ping falls silent within a frame: found within the bound, and the client is reset."""
    raw = await RawBackend().start(scope)
    gateway = await Gateway.start(scope, route("half", f"ws://127.0.0.1:{raw.port}", **beats("2s", "2s")))
    bound = detection_bound(await gateway.check(scope.gateway), "half", "upstream")
    client = await connect(scope, gateway.ports["ws"], "/half", ["X-Request-Id: silent-half"])
    _, backend = await raw.session()
    # Reads, and answers the gateway's pings, until the frame that is never completed.
    hearing = asyncio.ensure_future(client.receive_data())
    scope.ending.callback(hearing.cancel)
    ping = await within(6, backend.receive(), "the gateway's ping")
    await backend.send(PONG, ping.payload)
    await elapse(0.5, hearing.done, "the session ended early")
    backend.writer.write(frame_bytes(BINARY, bytes(1000))[:104])
    silent = time.monotonic()
    try:
        frame = await within(bound + SLACK, hearing, "a reset")
    except ConnectionResetError:
        took = time.monotonic() - silent
    except asyncio.IncompleteReadError as end:
        raise Failure(f"the client got a FIN instead of a reset, after {end.partial[-40:]!r}") from None
    else:
        raise Failure(f"the client got {frame} inside of a frame")
    require(took >= 2, f"reset {took:.2f} s after the last byte: before its deadline")
    verdict = await gateway.verdict("silent-half")
    seen = verdict["reason"], verdict.get("client.cut")
    expect(seen, ("upstream_unresponsive", True), "reason of the verdict, and its cut")


async def frozen(scope: Scope, backend_kind: str) -> None:
    """SIGSTOP on a backend that answered a ping: its kernel acknowledges everything, and yet it is found."""
    backend = await Backend.start(scope, backend_kind)
    gateway = await Gateway.start(scope, route("frozen", backend.url, **beats("2s", "2s")))
    bound = detection_bound(await gateway.check(scope.gateway), "frozen", "upstream")
    client = await shared_client(scope, "ws")
    number = client.begin(url=gateway.url("/frozen/echo"), receive=1)
    await client.opened(number)
    session = (await backend.process.event(5, event="open"))["session"]
    await backend.process.event(6, event="ping")
    # The answer to that ping is on loopback; half a second later the gateway has it, and the next is not yet due.
    await elapse(0.5, lambda: client.process.find(event="outcome", id=number), "the session ended early")
    backend.process.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    outcome = await client.outcome(number, bound + 10)
    took = outcome["at"] - stopped
    require(took <= bound + SLACK, f"told {took:.2f} s after the backend froze; the bound is {bound} s")
    expect(outcome["close"], {"code": 1012, "reason": "upstream keepalive timeout"}, "close at the client")
    expect((await gateway.verdict(session))["reason"], "upstream_unresponsive", "reason of the verdict")


def cases() -> list[Case]:
    pairs = zip(("websockets", "ws", "uvicorn"), CLIENTS)
    made = [
        Case(f"backend_loss/killed_{backend}_under_{client}", lambda scope, b=backend, c=client: killed(scope, b, c))
        for backend, client in pairs
    ]
    made += [Case("backend_loss/killed_inside_a_frame", killed_inside_a_frame)]
    made += [Case("backend_loss/silent_inside_a_frame", silent_inside_a_frame, waits=True)]
    made += [
        Case(f"backend_loss/frozen_{kind}", lambda scope, k=kind: frozen(scope, k), waits=True)
        for kind in ("websockets", "ws")
    ]
    return made
