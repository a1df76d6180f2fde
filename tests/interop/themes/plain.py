"""Services that speak plain HTTP beside their WebSocket, each with its own client: polling first, pages, REST, events."""
import hashlib
import os
import shutil

from harness.case import PYTHON, Case, Scope, Skip, expect, require
from harness.gateway import Gateway
from harness.peers import Backend, command, node_environment
from harness.processes import Process, free_port

TRANSPORTS = ("websocket", "xhr-streaming", "xhr-polling", "eventsource")


async def gateway_to(scope: Scope, *urls: str, route: tuple[str, ...] = (), pool: str = "") -> Gateway:
    """A gateway that passes everything to these backends."""
    more = "\n".join(route)
    return await Gateway.start(
        scope,
        f'[[route]]\nname = "plain"\nupstream = "plain"\nhttp = "proxy"\n{more}\n'
        f"[upstream.plain]\nservers = [{', '.join(map(repr, urls))}]\n{pool}\n",
    )


async def played(scope: Scope, seconds: float, peer: str, *arguments: str) -> dict:
    """What a client says became of it; it must tell of no error before."""
    process = await Process.start(scope, *command(peer), *arguments, name=peer, env=node_environment())
    outcome = await process.event(seconds, event="outcome")
    expect(process.find(event="error"), [], "errors of the client")
    return outcome


async def socket_io(scope: Scope) -> None:
    """A socket.io client polls first, upgrades, and is heard all the while."""
    backend = await Backend.start(scope, "backend_socketio.mjs")
    gateway = await gateway_to(scope, backend.url)
    outcome = await played(scope, 30, "client_socketio.mjs", f"http://127.0.0.1:{gateway.ports['ws']}")
    expect((outcome["first"], outcome["last"], outcome["intact"]), ("polling", "websocket", True), "transports")
    opened = await backend.process.event(5, event="open")
    expect((opened["transport"], opened["address"]), ("polling", "127.0.0.1"), "what the server saw")
    await backend.process.event(5, event="upgraded", transport="websocket")
    await backend.process.event(5, event="closed", reason="client namespace disconnect")


async def socket_io_polling(scope: Scope) -> None:
    """A socket.io client that may only poll stays for longer than its polls last."""
    backend = await Backend.start(scope, "backend_socketio.mjs")
    gateway = await gateway_to(scope, backend.url)
    outcome = await played(scope, 30, "client_socketio.mjs", f"http://127.0.0.1:{gateway.ports['ws']}", "polling")
    expect((outcome["first"], outcome["last"], outcome["intact"]), ("polling", "polling", True), "transports")


async def socket_io_sticky(scope: Scope) -> None:
    """Over two backends, a client that keeps cookies stays on the one that knows its session, over polls and the upgrade."""
    backends = [await Backend.start(scope, "backend_socketio.mjs") for _ in range(2)]
    pool = "balance = 'round_robin'\nsticky = { cookie = 'GATE' }"
    gateway = await gateway_to(scope, *(backend.url for backend in backends), pool=pool)
    for _ in range(2):
        outcome = await played(scope, 30, "client_socketio.mjs", f"http://127.0.0.1:{gateway.ports['ws']}")
        expect((outcome["first"], outcome["last"], outcome["intact"]), ("polling", "websocket", True), "transports")
    opened = [len(backend.process.find(event="open")) for backend in backends]
    upgraded = [len(backend.process.find(event="upgraded")) for backend in backends]
    expect((sum(opened), opened), (2, upgraded), "sessions, and those that upgraded where they had begun")


def sock_js(transport: str):
    async def run(scope: Scope) -> None:
        backend = await Backend.start(scope, "backend_sockjs.mjs")
        gateway = await gateway_to(scope, backend.url)
        url = f"http://127.0.0.1:{gateway.ports['ws']}/echo"
        outcome = await played(scope, 30, "client_sockjs.mjs", url, transport)
        seen = (outcome["transport"], outcome["heard"], outcome["code"])
        expect(seen, (transport, 3, 3000), "transport, messages heard, close code")
        opened = await backend.process.event(5, event="open")
        expect((opened["transport"], opened["address"]), (transport, "127.0.0.1"), "what the server saw")
        await backend.process.event(10, event="closed")

    return run


async def fastapi(scope: Scope) -> None:
    """A browser loads a page, and by it uses REST, uploads, hears events as they are sent, and opens a WebSocket."""
    if not shutil.which("chromium"):
        raise Skip("chromium is not installed")
    backend = await Backend.start(scope, "backend_pages.py")
    gateway = await gateway_to(scope, backend.url)
    outcome = await played(scope, 60, "pages_chromium.mjs", f"http://127.0.0.1:{gateway.ports['ws']}/")
    seen = outcome["seen"]
    expect(seen["item"], {"number": 7, "wanted": "yes", "body": {"name": "é"}, "client": "127.0.0.1"}, "REST")
    expect(seen["missing"], 404, "the application's own 404")
    size = 5_000_000
    expect(seen["upload"], {"size": size, "sha256": hashlib.sha256(b"\x07" * size).hexdigest()}, "the upload")
    expect(seen["events"], ["0", "1", "2"], "events, each sent when the one before was heard")
    expect(seen["socket"], "hello 127.0.0.1", "the WebSocket")
    await backend.process.event(10, event="events ended")


async def jupyter(scope: Scope) -> None:
    """JupyterLab in a browser: its page, its API, and a notebook whose kernel answers over a WebSocket."""
    program = PYTHON.parent / "jupyter-lab"
    if not shutil.which("chromium") or not program.exists():
        raise Skip("chromium or JupyterLab is not installed")
    port, home = free_port(), scope.folder / "home"
    home.mkdir()
    lab = await Process.start(
        scope, program, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=secret", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        f"--ServerApp.root_dir={home}", "--ServerApp.allow_remote_access=True",
        name="jupyter-lab", env={**os.environ, "HOME": str(home), "JUPYTER_PLATFORM_DIRS": "1"},
    )
    await lab.line(60, f"127.0.0.1:{port}/lab")
    gateway = await gateway_to(
        scope, f"ws://127.0.0.1:{port}",
        route=("heartbeat.upstream.ping_timeout = '5m'", "limits.client = { message = 'off', frame = 'off' }"),
    )
    url = f"http://127.0.0.1:{gateway.ports['ws']}/lab?token=secret"
    outcome = await played(scope, 150, "jupyter_chromium.mjs", url)
    expect(outcome["output"], "the answer is 42", "the output of a cell")
    require(any("/channels" in path for path in outcome["sockets"]), f"a kernel's WebSocket: {outcome['sockets']}")


def cases() -> list[Case]:
    return [
        Case("plain/socket.io", socket_io),
        Case("plain/socket.io-polling", socket_io_polling),
        Case("plain/socket.io-sticky", socket_io_sticky),
        *(Case(f"plain/sockjs-{transport}", sock_js(transport)) for transport in TRANSPORTS),
        Case("plain/fastapi", fastapi, limit=90),
        Case("plain/jupyterlab", jupyter, limit=240),
    ]
