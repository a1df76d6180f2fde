"""What must not be called dead: slow, silent and paused peers, and everyone while the gateway itself is paused."""
import asyncio
import signal
import time

from harness.case import Case, Scope, elapse, expect, require, until, within
from harness.frames import BINARY, PING, PONG, TEXT, RawBackend, Wire, connect
from harness.gateway import Gateway, beats, route
from harness.peers import BACKENDS, CLIENTS, Backend, shared_client

MESSAGE = 64 * 1024


async def raw_pair(scope: Scope, limit: int = 2**20, **options) -> tuple[Wire, Wire, Gateway]:
    """A byte-exact client and backend with a gateway of their own between them."""
    raw = await RawBackend().start(scope)
    gateway = await Gateway.start(scope, route("raw", f"ws://127.0.0.1:{raw.port}", **options))
    client = await connect(scope, gateway.ports["ws"], "/raw", limit=limit)
    _, backend = await raw.session()
    return client, backend, gateway


async def answer_pings(wire: Wire, heard: list) -> None:
    """Reads for as long as the session lives, answers pings, keeps the rest."""
    while True:
        frame = await wire.receive_data()
        heard.append(frame)


async def echoes(client: Wire, backend: Wire, heard: list, what: str) -> None:
    """A last message crosses: the session is whole."""
    await client.send(TEXT, what.encode())
    while (frame := await within(10, backend.receive(), f"{what!r} at the backend")).payload != what.encode():
        require(frame.opcode in (PING, PONG, BINARY), f"a frame of opcode {frame.opcode} at the backend")
    await backend.send(TEXT, what.encode())
    deadline = time.monotonic() + 10
    while not any(frame.payload == what.encode() for frame in heard):
        require(time.monotonic() < deadline, f"no {what!r} at the client")
        await asyncio.sleep(0.02)


def listening(scope: Scope, wire: Wire) -> tuple[list, asyncio.Task]:
    heard: list = []
    task = asyncio.ensure_future(answer_pings(wire, heard))
    scope.ending.callback(task.cancel)
    return heard, task


async def backend_does_not_read(scope: Scope) -> None:
    """The client behind a backend that reads nothing for 10 s is healthy, and so is the backend."""
    client, backend, _ = await raw_pair(scope, **beats("1s", "2s"))
    heard, listener = listening(scope, client)
    backend.writer.transport.pause_reading()
    count = 512

    async def pour() -> None:
        for n in range(count):
            await client.send(BINARY, n.to_bytes(4, "big") * (MESSAGE // 4))

    pouring = asyncio.ensure_future(pour())
    scope.ending.callback(pouring.cancel)
    await elapse(10, lambda: listener.done(), "the client's session ended while the backend did not read")
    require(not pouring.done(), "32 MiB fit into buffers: the backend was not slow at all")
    backend.writer.transport.resume_reading()
    got = 0
    while got < count:
        frame = await within(20, backend.receive_data(), f"message {got}")
        if frame.opcode == BINARY:
            expect(frame.payload[:4], got.to_bytes(4, "big"), "message at the backend")
            got += 1
    await echoes(client, backend, heard, "all read")


async def slow_download(scope: Scope) -> None:
    """50 MiB in messages of 64 KiB at 1 MiB/s, with a deadline shorter than the way through the buffers."""
    client, backend, gateway = await raw_pair(scope, limit=MESSAGE, **beats("1s", "5s"))
    count = 50 * 2**20 // MESSAGE
    payload = bytes(MESSAGE)

    async def pour() -> None:
        for n in range(count):
            await backend.send(BINARY, n.to_bytes(4, "big") + payload[4:])

    async def drain_backend() -> None:
        while True:
            await backend.receive_data()

    for task in (asyncio.ensure_future(pour()), asyncio.ensure_future(drain_backend())):
        scope.ending.callback(task.cancel)
    began = time.monotonic()
    for n in range(count):
        frame = await within(15, client.receive_data(), f"message {n}")
        expect((frame.opcode, frame.payload[:4]), (BINARY, n.to_bytes(4, "big")), f"message {n}")
        due = began + (n + 1) * MESSAGE / 2**20
        await asyncio.sleep(max(0, due - time.monotonic()))
    require(time.monotonic() - began > 45, "the download was not slow")
    heard, _ = listening(scope, client)
    await client.send(TEXT, b"thanks")
    await backend.send(TEXT, b"welcome")
    deadline = time.monotonic() + 10
    while not heard:
        require(time.monotonic() < deadline, "nothing crosses after the download")
        await asyncio.sleep(0.02)


async def answers_only_the_newest(scope: Scope, liveness: str) -> None:
    """A client may answer only the newest of several pings (RFC 6455 section 5.5.3)."""
    leg = f'{{ ping_interval = "1s", ping_timeout = "2s", liveness = "{liveness}" }}'
    client, backend, _ = await raw_pair(scope, heartbeat__client=leg, heartbeat__upstream__ping_interval="'off'")
    asked: list[bytes] = []
    pongs: list[bytes] = []

    async def hear() -> None:
        while True:
            frame = await client.receive()
            require(frame.opcode == PING, f"opcode {frame.opcode} at the client")
            asked.append(frame.payload)

    async def hear_pongs() -> None:
        while True:
            pongs.append((await backend.receive()).payload)

    hearing = [asyncio.ensure_future(hear()), asyncio.ensure_future(hear_pongs())]
    for task in hearing:
        scope.ending.callback(task.cancel)

    def own() -> list[bytes]:
        return [payload for payload in asked if not payload.startswith(b"application")]

    # Each ping of the gateway's is followed at once by one of the application's, and only that one is answered.
    for n in range(6):
        await until(lambda: len(own()) > n or any(task.done() for task in hearing), 5, f"ping {n} of the gateway")
        await backend.send(PING, f"application {n}".encode())
        await until(lambda: asked[-1].endswith(f" {n}".encode()), 5, f"ping {n} of the application at the client")
        await client.send(PONG, asked[-1])
    # The application pings faster than the client answers, so the gateway's own pings wait.
    for n in range(6, 36):
        await backend.send(PING, f"application {n}".encode())
        await elapse(0.2, lambda: any(task.done() for task in hearing), "the session ended")
        if n % 5 == 0:
            await client.send(PONG, asked[-1])
    await until(lambda: len(pongs) == 12, 5, "twelve answers at the backend")
    expect([p for p in pongs if not p.startswith(b"application")], [], "other pongs that crossed to the backend")


async def backend_never_pongs(scope: Scope) -> None:
    """A backend that answers no ping, but whose TCP is alive, is kept, with one warning that names the key."""
    client, backend, gateway = await raw_pair(scope, **beats("1s", "2s"))
    heard, listener = listening(scope, client)
    pings = 0

    async def ignore() -> None:
        nonlocal pings
        while (await backend.receive()).opcode == PING:
            pings += 1

    ignoring = asyncio.ensure_future(ignore())
    scope.ending.callback(ignoring.cancel)
    await elapse(12, lambda: listener.done() or ignoring.done(), "the session ended")
    require(pings >= 3, f"only {pings} pings came in 12 s")
    ignoring.cancel()
    await asyncio.gather(ignoring, return_exceptions=True)
    await echoes(client, backend, heard, "still here")
    warnings = [l for l in gateway.process.lines if "heartbeat.upstream" in l and "warn" in l.lower()]
    expect(len(warnings), 1, f"warnings that name the key ({warnings})")


async def gateway_paused(scope: Scope) -> None:
    """SIGSTOP for 10 s, SIGCONT: nobody is declared dead, on either leg, plain or TLS."""
    backends = {kind: await Backend.start(scope, kind) for kind in BACKENDS}
    gateway = await Gateway.start(scope, *(route(kind, b.url, **beats("1s", "2s")) for kind, b in backends.items()))
    sessions = []
    for client_kind in CLIENTS:
        client = await shared_client(scope, client_kind)
        for kind in BACKENDS:
            for scheme in ("ws", "wss"):
                url = gateway.url(f"/{kind}/echo", scheme)
                sessions.append((client, client.begin(url=url, ca=gateway.ca, hold=True, close={"code": 1000, "reason": ""})))
    for client, number in sessions:
        await client.opened(number)

    def ended():
        return [number for client, number in sessions if client.process.find(event="outcome", id=number)]

    await backends["ws"].process.event(5, event="ping", count=3)
    gateway.process.signal(signal.SIGSTOP)
    await elapse(10, ended, "a session ended while the gateway was stopped")
    gateway.process.signal(signal.SIGCONT)
    await elapse(6, ended, "a session ended after the gateway went on")
    for client, number in sessions:
        outcome = await client.end(number)
        expect((outcome["texts"], outcome["close"]["code"]), (["still here"], 1000), "echo and close at the end")


def cases() -> list[Case]:
    made = [
        Case("staying/backend_does_not_read_for_10_s", backend_does_not_read, waits=True),
        Case("staying/download_of_50_mib_at_1_mib_a_second", slow_download, waits=True, limit=100),
        Case("staying/backend_never_pongs", backend_never_pongs, waits=True),
        Case("staying/gateway_paused_for_10_s", gateway_paused, waits=True),
    ]
    made += [
        Case(f"staying/only_the_newest_ping_answered_{kind}", lambda scope, k=kind: answers_only_the_newest(scope, k), waits=True)
        for kind in ("traffic", "pong")
    ]
    return made
