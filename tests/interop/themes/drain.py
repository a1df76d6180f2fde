"""A gateway that is told to stop ends the sessions of foreign clients and backends, and says so to both."""
import signal

from harness.case import Case, Scope, expect, until, within
from harness.frames import connect
from harness.gateway import Gateway, route
from harness.peers import BACKENDS, CLIENTS, Backend, shared_client

TABLE = '[gateway]\ndrain = { spread = "1s", timeout = "10s" }\n'


async def sessions_are_ended(scope: Scope) -> None:
    """SIGTERM: each client and each handler gets 1001, everything ends cleanly, and the exit code is 0."""
    backends = {kind: await Backend.start(scope, kind) for kind in BACKENDS}
    gateway = await Gateway.start(scope, TABLE, *(route(kind, b.url) for kind, b in backends.items()))
    sessions = []
    for client_kind in CLIENTS:
        client = await shared_client(scope, client_kind)
        for kind in BACKENDS:
            for scheme in ("ws", "wss"):
                url = gateway.url(f"/{kind}/echo", scheme)
                sessions.append((client, client.begin(url=url, ca=gateway.ca, receive=1)))
    for client, number in sessions:
        await client.opened(number)
    gateway.process.signal(signal.SIGTERM)
    for client, number in sessions:
        outcome = await client.outcome(number, 10)
        expect((outcome["close"]["code"], outcome["clean"]), (1001, True), f"end at a {client.kind} client")
    expect(await within(10, gateway.process.child.wait(), "the end of the gateway"), 0, "exit code")
    for kind, backend in backends.items():
        await until(lambda: len(backend.process.find(event="closed")) == 6, 5, f"six ends at {kind}")
        codes = {event["code"] for event in backend.process.find(event="closed")}
        expect(codes, {1001}, f"codes at {kind}")


async def deaf_clients_are_cut(scope: Scope) -> None:
    """A client that answers no close frame cannot hold the gateway: `timeouts.close` ends it."""
    gateway = await Gateway.start(scope, TABLE, route("echo", "builtin:echo"))
    await connect(scope, gateway.ports["ws"], "/echo")
    gateway.process.signal(signal.SIGTERM)
    expect(await within(10, gateway.process.child.wait(), "the end of the gateway"), 0, "exit code")


def cases() -> list[Case]:
    return [Case(f"drain/{function.__name__}", function) for function in (sessions_are_ended, deaf_clients_are_cut)]
