"""Opening handshakes down to the byte: spelling, token lists, refusals, bytes behind the 101."""
import asyncio

from harness import frames
from harness.case import Case, Scope, expect, require, within
from harness.frames import BINARY, TEXT, RawBackend, accept_key, connect, frame_bytes, request
from harness.gateway import Gateway, route
from harness.peers import shared_client
from harness.processes import free_port

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Bench:
    """A gateway in front of byte-exact backends and of two that fail."""

    @classmethod
    async def make(cls, scope: Scope) -> "Bench":
        bench = cls()
        bench.raw = await RawBackend().start(scope)
        refuser = await asyncio.start_server(cls.refuse, "127.0.0.1", 0)
        scope.ending.callback(refuser.close)
        url = f"ws://127.0.0.1:{bench.raw.port}"
        bench.gateway = await Gateway.start(
            scope,
            route("raw", url),
            route("guarded", url, origins="['https://example.com']"),
            route("single", url, limits__sessions_per_address="1"),
            route("dead", f"ws://127.0.0.1:{free_port()}"),
            route("refuser", f"ws://127.0.0.1:{refuser.sockets[0].getsockname()[1]}"),
            name="handshake",
        )
        bench.port = bench.gateway.ports["ws"]
        return bench

    @staticmethod
    async def refuse(reader, writer) -> None:
        """A backend that wants a password."""
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return writer.close()
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 9\r\n\r\npassword?")
        await writer.drain()
        writer.close()


async def bench_of(scope: Scope) -> Bench:
    return await scope.once("handshake", Bench.make)


async def pair(scope: Scope, headers: list[str] = (), early=b"", extra=(), backend_early=b"", **options):
    """(request head at the backend, backend's stream, response head at the client, client's stream)"""
    bench = await bench_of(scope)
    bench.raw.extra, bench.raw.early = list(extra), backend_early
    answer, client = await within(
        10, request(bench.port, "/raw/a%20b?x=1&y", headers, early=early, **options), "an answer to the handshake"
    )
    expect(answer.status, 101, f"status ({answer.lines})")
    asked, backend = await bench.raw.session()
    scope.ending.callback(client.reset)
    return asked, backend, answer, client


async def spelled_to_backend(scope: Scope) -> None:
    """A byte-exact backend finds the names of RFC 6455, whatever the client wrote, and the client's own as written."""
    lower = [
        *("upgrade: WebSocket", "connection: keep-alive, Upgrade", "sec-websocket-version: 13"),
        *(f"sec-websocket-key: {KEY}", "X-OdD-CaSe: one", "x-lower: two", "AUTHORIZATION: Basic eHg="),
    ]
    asked, _, _, _ = await pair(scope, lower, defaults=False)
    expect(asked.lines[0], "GET /a%20b?x=1&y HTTP/1.1", "request line at the backend")
    names = [line.split(":")[0] for line in asked.lines[1:]]
    for name in ("Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        expect(names.count(name), 1, f"lines spelled {name!r} at the backend ({names})")
    for line in ("X-OdD-CaSe: one", "x-lower: two", "AUTHORIZATION: Basic eHg="):
        require(line in asked.lines, f"{line!r} is not at the backend: {asked.lines}")
    require("Upgrade: websocket" in asked.lines, f"Upgrade at the backend: {asked.lines}")
    require(asked.get("Sec-WebSocket-Key") != KEY, "the gateway's upstream handshake uses the client's key")


async def spelled_to_client(scope: Scope) -> None:
    """A byte-exact client finds the names of RFC 6455, and the backend's own as written."""
    _, _, answer, _ = await pair(scope, extra=["x-bAckEnd-iD: 7", "Set-Cookie: a=b", "set-cookie: c=d"])
    for line in (
        f"Sec-WebSocket-Accept: {accept_key(KEY)}",
        *("Upgrade: websocket", "x-bAckEnd-iD: 7", "Set-Cookie: a=b", "set-cookie: c=d"),
    ):
        expect(answer.lines.count(line), 1, f"lines {line!r} at the client ({answer.lines})")
    require(any(l.startswith("Connection: ") and "upgrade" in l.lower() for l in answer.lines), f"{answer.lines}")


async def token_lists(scope: Scope) -> None:
    """Connection and Upgrade as found in the wild."""
    rest = ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"]
    for wild in (
        ["Upgrade: WebSocket", "Connection: keep-alive, Upgrade"],
        ["Upgrade:\twebsocket", "Connection:\tkeep-alive ,\tupgrade"],
        ["Upgrade: websocket", "Connection: keep-alive", "Connection: Upgrade"],
        ["upgrade: WEBSOCKET", "connection: UPGRADE"],
    ):
        await pair(scope, [*wild, *rest], defaults=False)


async def bytes_behind_the_handshake(scope: Scope) -> None:
    """Frames in the same packet as either handshake are relayed, not lost."""
    early = frame_bytes(TEXT, b"early client", key=b"abcd")
    _, backend, _, client = await pair(scope, early=early, backend_early=frame_bytes(TEXT, b"early backend"))
    expect((await within(5, backend.receive_data(), "the client's early frame")).payload, b"early client", "frame")
    expect((await within(5, client.receive_data(), "the backend's early frame")).payload, b"early backend", "frame")
    await client.send(BINARY, b"later")
    expect((await within(5, backend.receive_data(), "a later frame")).payload, b"later", "frame")


async def refusal(scope: Scope, status: int, path: str, headers=(), **options) -> frames.Head:
    bench = await bench_of(scope)
    answer, wire = await within(15, request(bench.port, path, headers, **options), f"an answer for {path}")
    scope.ending.callback(wire.reset)
    expect(answer.status, status, f"status for {path} ({answer.lines})")
    return answer


async def no_route(scope: Scope) -> None:
    await refusal(scope, 404, "/nowhere")
    await refusal(scope, 404, "/rawer")


async def not_an_upgrade(scope: Scope) -> None:
    answer = await refusal(scope, 426, "/raw", defaults=False)
    expect((answer.get("Upgrade") or "").lower(), "websocket", "Upgrade")


async def wrong_version(scope: Scope) -> None:
    wanted = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 8"]
    answer = await refusal(scope, 426, "/raw", wanted, defaults=False)
    expect(answer.get("Sec-WebSocket-Version"), "13", "Sec-WebSocket-Version")


async def wrong_method(scope: Scope) -> None:
    await refusal(scope, 405, "/raw", method="POST")


async def malformed(scope: Scope) -> None:
    rest = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    await refusal(scope, 400, "/raw", rest, defaults=False)
    await refusal(scope, 400, "/raw", [*rest, "Sec-WebSocket-Key: short"], defaults=False)
    for path in ("/raw/../guarded", "/raw/%2e%2e/guarded", "/raw/a%2fb", "/raw/a\\b"):
        await refusal(scope, 400, path)


async def wrong_origin(scope: Scope) -> None:
    await refusal(scope, 403, "/guarded", ["Origin: https://evil.example"])
    await refusal(scope, 403, "/guarded", ["Origin: null"])
    bench = await bench_of(scope)
    for headers in (["Origin: https://example.com"], []):
        await connect(scope, bench.port, "/guarded", headers)
        await bench.raw.session()


async def wrong_origin_of_a_page(scope: Scope) -> None:
    """Chromium's page on another origin gets no session."""
    bench = await bench_of(scope)
    client = await shared_client(scope, "chromium")
    outcome = await client.play(url=bench.gateway.url("/guarded"), close={"code": 1000, "reason": ""})
    expect(outcome["opened"], False, "opened")


async def heads_too_large(scope: Scope) -> None:
    await refusal(scope, 431, "/raw", [f"X-{n}: {'x' * 1000}" for n in range(20)])


async def per_address_limit(scope: Scope) -> None:
    bench = await bench_of(scope)
    await connect(scope, bench.port, "/single")
    await bench.raw.session()
    await refusal(scope, 429, "/single")


async def dead_backend(scope: Scope) -> None:
    await refusal(scope, 502, "/dead")


async def refusal_of_the_backend(scope: Scope) -> None:
    bench = await bench_of(scope)
    answer, wire = await request(bench.port, "/refuser")
    scope.ending.callback(wire.reset)
    expect(answer.status, 401, "status")
    expect(answer.get("WWW-Authenticate"), "Basic", "WWW-Authenticate")
    body = await within(5, wire.reader.readexactly(9), "the backend's body")
    expect(body, b"password?", "body")


def cases() -> list[Case]:
    functions = (
        *(spelled_to_backend, spelled_to_client, token_lists, bytes_behind_the_handshake, no_route, not_an_upgrade),
        *(wrong_version, wrong_method, malformed, wrong_origin, wrong_origin_of_a_page, heads_too_large),
        *(per_address_limit, dead_backend, refusal_of_the_backend),
    )
    return [Case(f"handshake/{function.__name__}", function) for function in functions]
