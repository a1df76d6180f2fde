"""Backends that are reached otherwise than by plain TCP at the first try."""
import asyncio

from harness.case import Case, Scope, expect, within
from harness.frames import RawBackend, connect, request
from harness.gateway import Gateway, install_certificates, make_certificates, route
from harness.peers import Backend, shared_client
from harness.processes import free_port

TRUSTED = 'tls = { ca = "tls/ca.pem" }\n'


async def tls_backend(scope: Scope) -> str:
    """The wss:// address of a foreign backend."""
    folder = scope.folder / "backend"
    await install_certificates(scope, folder, "127.0.0.1")
    backend = await Backend.start(scope, "websockets", folder / "chain.pem", folder / "key.pem")
    return f"wss://127.0.0.1:{backend.port}"


async def tls_on_both_legs(scope: Scope) -> None:
    """TLS to a backend whose authority the configuration names: large and compressed messages, a clean end."""
    gateway = await Gateway.start(scope, route("wss", await tls_backend(scope)) + TRUSTED)
    client = await shared_client(scope, "ws")
    send = [{"kind": "binary", "size": 8 * 2**20}, {"kind": "text", "size": 2**20}]
    for deflate in (False, True):
        outcome = await client.play(
            url=gateway.url("/wss/echo", "wss"), ca=gateway.ca, send=send, echo=True, deflate=deflate,
            close={"code": 4000, "reason": "done"},
        )
        expect((outcome["opened"], outcome["echoed"]), (True, True), f"opened and echoed, deflate {deflate}")
        expect(outcome["close"]["code"], 4000, "close code that comes back")


async def unknown_authority(scope: Scope) -> None:
    """A backend whose certificate another authority signed gets no session."""
    await asyncio.to_thread(make_certificates, scope.folder / "other", "127.0.0.1")
    tls = 'tls = { ca = "../other/ca.pem" }\n'
    gateway = await Gateway.start(scope, route("wss", await tls_backend(scope)) + tls)
    answer, wire = await within(15, request(gateway.ports["ws"], "/wss"), "an answer")
    scope.ending.callback(wire.reset)
    expect(answer.status, 502, f"status ({answer.lines})")


async def dead_backend_is_passed_over(scope: Scope) -> None:
    """Of two backends one refuses to connect: every client gets a session with the other."""
    raw = await RawBackend().start(scope)
    servers = (f"ws://127.0.0.1:{free_port()}", f"ws://localhost:{raw.port}")
    gateway = await Gateway.start(scope, route("pool", *servers))
    for _ in range(6):
        await connect(scope, gateway.ports["ws"], "/pool")
        await raw.session()


def cases() -> list[Case]:
    functions = (tls_on_both_legs, unknown_authority, dead_backend_is_passed_over)
    return [Case(f"upstreams/{function.__name__}", function) for function in functions]
