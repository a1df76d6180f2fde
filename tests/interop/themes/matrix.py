"""Each client, through the gateway, to each backend, plain and TLS: everything that two endpoints notice."""
import json

from harness.case import Case, Scope, Skip, expect, require
from harness.gateway import Gateway, route
from harness.peers import BACKENDS, CLIENTS, Backend, Client, shared_client


class Bench:
    """One gateway in front of one backend of each kind."""

    def __init__(self, gateway: Gateway, backends: dict[str, Backend]):
        self.gateway, self.backends = gateway, backends

    @classmethod
    async def make(cls, scope: Scope) -> "Bench":
        backends = {kind: await Backend.start(scope, kind) for kind in BACKENDS}
        gateway = await Gateway.start(scope, *(route(kind, backends[kind].url) for kind in BACKENDS), name="matrix")
        return cls(gateway, backends)


class Combination:
    """A client, a backend and a scheme; each method is a case."""

    def __init__(self, client: str, backend: str, scheme: str):
        self.client_kind, self.backend_kind, self.scheme = client, backend, scheme

    async def prepare(self, scope: Scope) -> tuple[Bench, Backend, Client]:
        bench = await scope.shared("matrix", Bench.make)
        return bench, bench.backends[self.backend_kind], await shared_client(scope, self.client_kind)

    def path(self, what: str, case: str) -> str:
        """The path at the backend, which says who asks, so that its events can be found."""
        return f"/{what}?{self.client_kind}-{self.scheme}-{case}"

    async def play(self, scope: Scope, what: str, case: str, **scenario) -> tuple[dict, Backend, str]:
        bench, backend, client = await self.prepare(scope)
        path = self.path(what, case)
        url = bench.gateway.url(f"/{self.backend_kind}{path}", self.scheme)
        scenario.setdefault("close", {"code": 1000, "reason": "done"})
        outcome = await client.play(url=url, ca=bench.gateway.ca, **scenario)
        require(outcome.get("opened"), f"not opened: {outcome}")
        return outcome, backend, path

    async def echo(self, scope: Scope) -> None:
        texts = ["h\u00e9llo \u2713", "", "x" * 125, "x" * 126]
        send = [{"kind": "text", "text": text} for text in texts]
        send += [{"kind": "binary", "size": size} for size in (0, 1, 125, 126, 65535, 65536)]
        outcome, _, _ = await self.play(scope, "echo", "echo", send=send, echo=True, deflate=False)
        require(outcome["echoed"], f"echoes differ: {outcome}")
        expect(outcome["close"], {"code": 1000, "reason": "done"}, "close at the client")

    async def large(self, scope: Scope) -> None:
        send = [{"kind": "binary", "size": 8 * 2**20}, {"kind": "text", "size": 2**20 + 1}]
        outcome, _, _ = await self.play(scope, "echo", "large", send=send, echo=True, deflate=False)
        require(outcome["echoed"], f"echoes differ: {outcome}")

    async def fragments(self, scope: Scope) -> None:
        _, _, client = await self.prepare(scope)
        if not client.sends_fragments and self.backend_kind == "uvicorn":
            raise Skip("neither this client nor this backend can be told to fragment")
        send = [{"kind": "text", "size": 9999, "fragments": 7}, {"kind": "binary", "size": 200_000, "fragments": 5}]
        what = "echo" if self.backend_kind == "uvicorn" else "fragments"
        for deflate in (False, True):
            outcome, _, _ = await self.play(scope, what, f"fragments{deflate}", send=send, echo=True, deflate=deflate)
            require(outcome["echoed"], f"echoes differ, deflate {deflate}: {outcome}")

    async def deflate(self, scope: Scope) -> None:
        send = [{"kind": "text", "size": 2**20}, {"kind": "binary", "size": 300_000}, {"kind": "text", "text": "short"}]
        outcome, backend, path = await self.play(scope, "echo", "deflate", send=send, echo=True)
        require(outcome["echoed"], f"echoes differ: {outcome}")
        require("permessage-deflate" in outcome["extensions"], f"not negotiated at the client: {outcome['extensions']!r}")
        opened = await backend.process.event(5, event="open", path=path)
        require(opened["deflate"], "not negotiated at the backend")

    async def subprotocol(self, scope: Scope) -> None:
        send = [{"kind": "text", "text": "hello"}]
        outcome, _, _ = await self.play(scope, "echo", "subprotocol", send=send, protocols=["chat.v1", "chat.v2"])
        expect(outcome["protocol"], "chat.v2", "subprotocol at the client")

    async def closed_by_client(self, scope: Scope) -> None:
        for code, reason in ((1000, "bye"), (3001, "trois"), (4999, "\u00fcn\u00ef " + "x" * 117)):
            close = {"code": code, "reason": reason}
            outcome, backend, path = await self.play(scope, "echo", f"client{code}", close=close)
            seen = await backend.process.event(5, event="closed", path=path)
            expect((seen["code"], seen["reason"]), (code, reason), "close at the backend")
            expect(outcome["close"]["code"], code, "close code that comes back to the client")
            require(outcome["clean"], f"not a clean close: {outcome}")

    async def closed_by_backend(self, scope: Scope) -> None:
        for code, reason in ((1000, "bye"), (3001, "trois"), (4999, "\u00fcn\u00ef " + "x" * 117)):
            send = [{"kind": "text", "text": f"close {code} {reason}"}]
            outcome, _, _ = await self.play(scope, "control", f"backend{code}", send=send, receive=1, close=None)
            expect(outcome["close"], {"code": code, "reason": reason}, "close at the client")
            require(outcome["clean"], f"not a clean close: {outcome}")

    async def forwarded(self, scope: Scope) -> None:
        lies = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-OdD-CaSe": "Kept"}
        outcome, _, _ = await self.play(scope, "headers", "forwarded", receive=1, headers=lies)
        pairs = json.loads(outcome["texts"][0])
        bench, _, client = await self.prepare(scope)
        headers = {name.lower(): value for name, value in pairs}
        require("6.6.6.6" not in outcome["texts"][0], f"a client's own forwarded header crossed: {pairs}")
        expect(headers.get("x-forwarded-for"), "127.0.0.1", "X-Forwarded-For")
        expect(headers.get("x-real-ip"), "127.0.0.1", "X-Real-IP")
        expect(headers.get("x-forwarded-proto"), "https" if self.scheme == "wss" else "http", "X-Forwarded-Proto")
        expect(headers.get("x-forwarded-host"), f"127.0.0.1:{bench.gateway.ports[self.scheme]}", "X-Forwarded-Host")
        require("for=127.0.0.1" in headers.get("forwarded", ""), f"Forwarded: {headers.get('forwarded')!r}")
        require(headers.get("x-request-id"), "no X-Request-Id")
        if client.sets_headers:
            expect(headers.get("x-odd-case"), "Kept", "a header of the client's own")


def cases() -> list[Case]:
    methods = ["echo", "large", "fragments", "deflate", "subprotocol", "closed_by_client", "closed_by_backend", "forwarded"]
    return [
        Case(f"matrix/{client}-{backend}-{scheme}/{method}", getattr(Combination(client, backend, scheme), method))
        for client in CLIENTS
        for backend in BACKENDS
        for scheme in ("ws", "wss")
        for method in methods
    ]
