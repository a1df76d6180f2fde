"""The dashboard in a browser: it updates itself, ends a session, asks for the token and keeps it in memory alone."""
import asyncio
import itertools
import shutil

from harness.case import Case, Scope, Skip, expect, require
from harness.frames import Wire, connect
from harness.gateway import Gateway, beats, route
from harness.peers import Backend, command, node_environment
from harness.processes import Process, free_port

TOKEN = "0123456789abcdef0123456789abcdef"


class Page:
    """The dashboard in headless Chromium."""

    def __init__(self, process: Process):
        self.process, self._numbers = process, itertools.count()

    @classmethod
    async def open(cls, scope: Scope, url: str) -> "Page":
        if not shutil.which("chromium"):
            raise Skip("chromium is not installed")
        process = await Process.start(scope, *command("dashboard_chromium.mjs"), url, name="dashboard", env=node_environment())
        await process.event(40, event="ready")
        return cls(process)

    async def do(self, name: str, **options) -> dict:
        number = next(self._numbers)
        self.process.tell({"id": number, "command": name, **options})
        done = await self.process.event(30, event="done", id=number)
        require("failed" not in done, f"{name} {options}: {done.get('failed')}")
        return done

    async def sees(self, where: str, text: str) -> None:
        await self.do("sees", where=where, text=text)

    def well(self) -> None:
        expect(self.process.find(event="error"), [], "errors of the page")
        expect(self.process.find(event="foreign"), [], "what it loads from elsewhere")


async def started(scope: Scope, *tables: str) -> tuple[Gateway, int]:
    port = free_port()
    folder = scope.folder / "gateway"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "admin.token").write_text(TOKEN)
    gateway = await Gateway.start(scope, f'[admin]\naddress = "127.0.0.1:{port}"\ntoken_file = "admin.token"', *tables)
    return gateway, port


async def clients(scope: Scope, gateway: Gateway, *names: str) -> list[Wire]:
    """Raw clients that answer pings and say nothing else."""
    wires = [await connect(scope, gateway.ports["ws"], f"/{name}/echo") for name in names]
    for wire in wires:
        hearing = asyncio.ensure_future(wire.receive_data())
        # Its end is the session's, however it comes.
        hearing.add_done_callback(lambda done: done.cancelled() or done.exception())
        scope.ending.callback(hearing.cancel)
    return wires


async def dashboard(scope: Scope) -> None:
    """Figures move by themselves, the keyboard suffices to end a session, and the token stays in memory."""
    backend = await Backend.start(scope, "websockets")
    gateway, port = await started(
        scope, route("chat", backend.url, **beats("1s", "5s")), route("demo", "builtin:echo", **beats("1s", "5s"))
    )
    page = await Page.open(scope, f"http://127.0.0.1:{port}/")
    await page.sees("#state", "serving")
    await page.sees("#open", "0")
    wires = await clients(scope, gateway, *["chat"] * 5, *["demo"] * 3)
    await page.sees("#open", "8")
    await page.sees("#table-quietest", "127.0.0.1")
    await page.sees("#backends", "builtin:echo")
    for width, scheme in ((360, "light"), (360, "dark"), (1280, "light")):
        fits = await page.do("fits", width=width, scheme=scheme)
        require(fits["wide"] <= width, f"the page is {fits['wide']} wide in a window of {width}")
    light, dark = [(await page.do("fits", width=800, scheme=scheme))["ground"] for scheme in ("light", "dark")]
    require(light != dark, f"dark and light look alike: {light}")
    expect((await page.do("nameless"))["count"], 0, "controls without a name")
    await page.do("tab_to_end")
    await page.do("fill", where="#end-code", text="4001")
    await page.do("fill", where="#end-reason", text="go away")
    await page.do("press", where="#dialog-end button[value=end]")
    await page.sees("#token-why", "token")
    await page.do("fill", where="#token", text=TOKEN)
    await page.do("press", where="#dialog-token button[value=use]")
    await page.sees("#ended", "terminated")
    await page.sees("#open", "7")
    kept = await page.do("kept")
    expect((kept["cookies"], kept["local"], kept["session"]), ("", 0, 0), "what the page keeps")
    require(TOKEN not in kept["url"], "the token is in the URL")
    page.well()
    expect(len(wires), 8, "sessions")


async def screenshot(scope: Scope) -> None:
    """A picture for the documentation, made anew by every run into its own folder."""
    backends = [await Backend.start(scope, "websockets") for _ in range(2)]
    gateway, port = await started(
        scope,
        route("chat", *(b.url for b in backends), **beats("1s", "5s")),
        route("demo", "builtin:echo", **beats("1s", "5s")),
    )
    page = await Page.open(scope, f"http://127.0.0.1:{port}/")
    wires = []
    for _ in range(6):
        wires += await clients(scope, gateway, "chat", "chat", "demo")
        await page.sees("#open", str(len(wires)))
    for wire in wires[:4]:
        wire.reset()
    await page.sees("#ended", "client_gone")
    await page.sees("#open", str(len(wires) - 4))
    for name, width, height, scheme in (("dashboard", 1280, 900, "light"), ("phone", 390, 844, "dark")):
        file = scope.folder / f"{name}.png"
        await page.do("screenshot", file=str(file), width=width, height=height, scheme=scheme, full=name == "dashboard")
        require(file.stat().st_size > 10_000, f"{file} is empty")
    page.well()


def cases() -> list[Case]:
    return [Case(f"admin/{function.__name__}", function, limit=120) for function in (dashboard, screenshot)]
