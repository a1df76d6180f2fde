"""A peer vanishes without a FIN: both sides are told within the bound, and nothing of it is left."""
from harness.case import Case, Scope, elapse, expect, require, until
from harness.gateway import CLOSE_TIMEOUT, Gateway, beats, detection_bound, route
from harness.netns import internet_of
from harness.peers import Backend, Client
from harness.processes import connections_from

SLACK = 1.0


class Bench:
    """In namespaces: the legacy backend, another that answers pings, one gateway, one client program, one sniffer."""

    @classmethod
    async def make(cls, scope: Scope) -> "Bench":
        bench = cls()
        bench.net = net = await internet_of(scope)
        gateway_address = await net.host("gateway")
        bench.legacy = await Backend.start(
            scope, "uvicorn", host=await net.host("backend"), namespace=net.namespace("backend")
        )
        bench.lost = await Backend.start(
            scope, "websockets", host=await net.host("backend"), namespace=net.namespace("backend")
        )
        bench.gateway = await Gateway.start(
            scope,
            route("legacy", bench.legacy.url, **beats("2s", "2s")),
            route("lost", bench.lost.url, **beats("2s", "2s")),
            namespace=net.namespace("gateway"),
            address=gateway_address,
            name="vanish",
        )
        bench.gateway_address = gateway_address
        bench.client = await Client.start(scope, "websockets", namespace=net.namespace("client"))
        bench.sniffer = await net.sniff(scope)
        bench.checked = await bench.gateway.check(scope.gateway)
        return bench

    def url(self, path: str, scheme: str = "ws") -> str:
        return self.gateway.url(path, scheme, host=self.gateway_address)


async def bench_of(scope: Scope) -> Bench:
    return await scope.shared("vanish", Bench.make)


async def client_vanishes(scope: Scope, name: str, path: str, scheme: str = "ws") -> None:
    """The FastAPI handler ends within the bound that `check` prints, and the gateway keeps no descriptor."""
    bench = await bench_of(scope)
    bound = detection_bound(bench.checked, "legacy", "client")
    require(4.1 <= bound <= 4.3, f"check prints {bound} s for 2s x 1.1 + 2s")
    address = await bench.net.host("client")
    number = bench.client.begin(
        url=bench.url(f"/legacy{path}", scheme), ca=bench.gateway.ca, local=address, headers={"X-Request-Id": name},
        receive=2**31, hold=True,
    )
    await bench.client.opened(number)
    opened = await bench.legacy.process.event(5, event="open", session=name)
    # Long enough for a ping to be answered and for the feed to flow.
    await until(lambda: bench.client.process.find(event="ping", id=number), 5, "a ping at the client")
    require(connections_from(bench.gateway.pid, address) == 1, "the gateway has a descriptor of the client")
    gone = await bench.net.vanish(address)
    closed = await bench.legacy.process.event(bound + 10, event="closed", path=opened["path"])
    took = closed["at"] - gone
    require(took <= bound + SLACK, f"the handler ended {took:.2f} s after the client vanished; the bound is {bound} s")
    expect((closed["code"], closed["reason"]), (1001, "client keepalive timeout"), "close at the backend")
    port = (await bench.gateway.verdict(name))["upstream.local_port"]
    await until(
        lambda: connections_from(bench.gateway.pid, address) == 0
        and connections_from(bench.gateway.pid, bench.legacy.host, port) == 0,
        CLOSE_TIMEOUT + SLACK,
        "no descriptor of the session with the vanished client left",
    )
    require("client disconnected" in bench.legacy.process.lines, "the handler prints nothing")
    said = [e for e in bench.sniffer.events if address in (e.get("from"), e.get("about"))]
    expect(said, [], "RST and ICMP messages of the vanished client")
    expect((await bench.gateway.verdict(name))["reason"], "client_unresponsive", "reason of the verdict")


async def client_while_nobody_sends(scope: Scope) -> None:
    await client_vanishes(scope, "vanish-quiet", "/echo?quiet")


async def client_while_backend_sends_20_bytes_a_second(scope: Scope) -> None:
    await client_vanishes(scope, "vanish-trickle", "/feed?bytes=20&every=1")


async def client_while_backend_sends_64_kib_a_second(scope: Scope) -> None:
    await client_vanishes(scope, "vanish-stream", "/feed?bytes=8192&every=0.125")


async def client_over_tls(scope: Scope) -> None:
    await client_vanishes(scope, "vanish-tls", "/echo?tls", "wss")


async def backend_host_vanishes(scope: Scope) -> None:
    """A backend that answered pings becomes unreachable: the client is told within the bound."""
    bench = await bench_of(scope)
    bound = detection_bound(bench.checked, "lost", "upstream")
    number = bench.client.begin(
        url=bench.url("/lost/echo?host"), headers={"X-Request-Id": "lost-host"}, hold=True, local=await bench.net.host("client")
    )
    await bench.client.opened(number)
    path = (await bench.lost.process.event(5, event="open", session="lost-host"))["path"]
    await bench.lost.process.event(6, event="ping", path=path)
    # The backend's answer crosses a link of microseconds: it is there long before the next ping is due.
    await elapse(0.5, lambda: bench.client.process.find(event="outcome", id=number), "the session ended early")
    gone = await bench.net.vanish(bench.lost.host)
    outcome = await bench.client.outcome(number, bound + 10)
    took = outcome["at"] - gone
    require(took <= bound + SLACK, f"the client was told {took:.2f} s after the backend vanished; the bound is {bound} s")
    expect(outcome["close"], {"code": 1012, "reason": "upstream keepalive timeout"}, "close at the client")
    await until(
        lambda: connections_from(bench.gateway.pid, bench.lost.host) == 0,
        CLOSE_TIMEOUT + SLACK,
        "no descriptor of the vanished backend left",
    )
    expect((await bench.gateway.verdict("lost-host"))["reason"], "upstream_unresponsive", "reason of the verdict")


def cases() -> list[Case]:
    functions = (
        *(client_while_nobody_sends, client_while_backend_sends_20_bytes_a_second),
        *(client_while_backend_sends_64_kib_a_second, client_over_tls, backend_host_vanishes),
    )
    return [Case(f"vanish/{function.__name__}", function, waits=True) for function in functions]
