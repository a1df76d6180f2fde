"""What the documentation says works: configurations, examples, `try`, and the page with the reconnecting client."""
import asyncio
import re
import shutil
import subprocess

from harness.case import PYTHON, REPOSITORY, TOOLS, Case, Scope, Skip, expect, require, within
from harness.frames import connect
from harness.gateway import Gateway, beats, install_certificates, route
from harness.peers import Backend, command, node_environment
from harness.processes import Process, free_port


async def check(scope: Scope, folder) -> tuple[int, str]:
    """Exit code and output of `pulsegate check` in a folder."""
    process = await Process.start(scope, scope.gateway, "check", name="check", cwd=folder, stdin=subprocess.DEVNULL)
    await within(10, process.child.wait(), "the end of check")
    await process.end()
    return process.child.returncode, "\n".join(process.lines)


async def shipped_configuration(scope: Scope) -> None:
    """The gateway.toml of the repository passes `check`."""
    code, output = await check(scope, REPOSITORY)
    expect(code, 0, f"exit code of check ({output})")


async def readme_configurations(scope: Scope) -> None:
    """Each whole configuration in the README passes `check`, and the first gives the answer that the README shows."""
    text = (REPOSITORY / "README.md").read_text()
    shown = re.search(r"```\n(routes, in matching order\n.*?)```", text, re.DOTALL)[1]
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    whole = [block for block in blocks if "[[listener]]" in block]
    require(whole, "the README has no configuration")
    for number, block in enumerate(whole):
        folder = scope.folder / str(number)
        folder.mkdir()
        await install_certificates(scope, folder / "tls", "127.0.0.1")
        shutil.copy(folder / "tls" / "chain.pem", folder / "tls" / "fullchain.pem")
        shutil.copy(folder / "tls" / "key.pem", folder / "tls" / "privkey.pem")
        (folder / "gateway.toml").write_text(block)
        code, output = await check(scope, folder)
        expect(code, 0, f"exit code of check for:\n{block}\n{output}")
        require(number > 0 or shown in output, f"the README shows:\n{shown}\ncheck says:\n{output}")


async def readme_recipes(scope: Scope) -> None:
    """The keys of each recipe are right on a route."""
    recipes = (REPOSITORY / "README.md").read_text().split("## Recipes")[1].split("\n## ")[0]
    rows = [row.split("|")[1:3] for row in recipes.splitlines() if row.startswith("|") and "`" in row]
    require(len(rows) >= 6, f"six recipes: {rows}")
    for name, keys in rows:
        folder = scope.folder / name.strip().replace(" ", "-")
        folder.mkdir()
        settings = "\n".join(re.findall(r"`([^`]+ = [^`]+)`", keys))
        (folder / "gateway.toml").write_text(
            f'[[listener]]\naddress = "127.0.0.1:8080"\n[[route]]\nupstream = "echo"\n{settings}\n'
            '[upstream.echo]\nservers = ["builtin:echo"]\n'
        )
        code, output = await check(scope, folder)
        expect(code, 0, f"exit code of check for {name.strip()} ({output})")


async def readme_python_client(scope: Scope) -> None:
    """The Python client of the README, run as it stands, shows an echo and a ping."""
    script = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)[1]
    gateway = await Gateway.start(scope, route("echo", "builtin:echo", **beats("1s", "2s")))
    script = script.replace("ws://127.0.0.1:8080", gateway.url("/echo"))
    process = await Process.start(scope, PYTHON, "-u", "-c", script, name="readme", stdin=subprocess.DEVNULL)
    await process.line(20, "< PING")
    require("hello" in process.lines, "the echo is printed")


async def readme_node_client(scope: Scope) -> None:
    """The Node client of the README, run as it stands, shows an echo and a ping."""
    text = (REPOSITORY / "README.md").read_text()
    script = next(block for block in re.findall(r"```js\n(.*?)```", text, re.DOTALL) if "require('ws')" in block)
    gateway = await Gateway.start(scope, route("echo", "builtin:echo", **beats("1s", "2s")))
    script = script.replace("ws://127.0.0.1:8080", gateway.url("/echo"))
    modules = node_environment() | {"NODE_PATH": str(TOOLS / "node" / "node_modules")}
    process = await Process.start(scope, "node", "-e", script, name="node", env=modules, stdin=subprocess.DEVNULL)
    for wanted in ("hello", "ping"):
        await process.line(20, wanted)


async def readme_console(scope: Scope) -> None:
    """What the README says to type into a browser's console shows an echo."""
    if not shutil.which("chromium"):
        raise Skip("chromium is not installed")
    text = (REPOSITORY / "README.md").read_text()
    script = next(block for block in re.findall(r"```js\n(.*?)```", text, re.DOTALL) if "new WebSocket(" in block)
    gateway = await Gateway.start(scope, route("echo", "builtin:echo"))
    script = script.replace("ws://127.0.0.1:8080", gateway.url("/echo"))
    page = await Process.start(
        scope, *command("console_chromium.mjs"), script, name="console", env=node_environment(), stdin=subprocess.DEVNULL
    )
    await page.event(40, event="console", text="hello")


async def example(scope: Scope, name: str, *arguments: str) -> Process:
    """An example of the repository, started. `cargo test` has built it, or else it is built now."""
    build = ("cargo", "build", "--quiet", "--locked", "--profile", "test", "--example", name)
    expect(await (await asyncio.create_subprocess_exec(*build, cwd=REPOSITORY)).wait(), 0, f"exit code of {build}")
    program = REPOSITORY / "target" / "debug" / "examples" / name
    return await Process.start(scope, program, *arguments, name=name, stdin=subprocess.DEVNULL)


async def rust_examples(scope: Scope) -> None:
    """The silent backend under the client, both from examples/: an echo, pings, and one warning of the gateway's."""
    port = free_port()
    backend = await example(scope, "silent_backend", f"127.0.0.1:{port}")
    await backend.line(10, "listening")
    gateway = await Gateway.start(scope, route("silent", f"ws://127.0.0.1:{port}", **beats("1s", "2s")))
    client = await example(scope, "client", gateway.url("/silent"), "good day")
    await client.line(10, 'text "good day"')
    await client.line(10, "ping, 12 bytes, answered")
    await backend.line(10, "pings, and gets no pong")
    await gateway.process.line(15, "heartbeat.upstream")
    expect(client.running, True, "the client's session lives")


async def mistakes_are_told_at_once(scope: Scope) -> None:
    """Two mistakes: both told, with their place, exit code 78, and nothing listens."""
    port = free_port()
    scope.folder.joinpath("gateway.toml").write_text(
        f'[[listener]]\naddress = "127.0.0.1:{port}"\n[defaults]\nproxy_read_timeout = "60s"\npings = "never"\n'
        '[[route]]\nupstream = "echo"\n[upstream.echo]\nservers = ["builtin:echo"]\n'
    )
    process = await Process.start(scope, scope.gateway, "run", name="run", cwd=scope.folder, stdin=subprocess.DEVNULL)
    expect(await within(10, process.child.wait(), "the end of run"), 78, "exit code")
    await process.end()
    output = "\n".join(process.lines)
    for place in ("gateway.toml:4:1", "gateway.toml:5:"):
        require(place in output, f"{place} is not named: {output}")


async def legacy_backend_example(scope: Scope) -> None:
    """A client is reset, and the example's handler says so."""
    port = free_port()
    backend = await Process.start(
        scope, PYTHON, "-u", REPOSITORY / "examples" / "legacy_backend.py", port, name="legacy", stdin=subprocess.DEVNULL
    )
    await backend.line(20, "Uvicorn running on")
    gateway = await Gateway.start(scope, route("legacy", f"ws://127.0.0.1:{port}"))
    client = await connect(scope, gateway.ports["ws"], "/legacy")
    await backend.line(5, "client connected")
    client.reset()
    line = await backend.line(5, "client disconnected")
    require("1001 client connection lost" in line, f"what the example prints: {line}")


async def try_shows_the_heartbeat(scope: Scope) -> None:
    """`pulsegate try` prints pings, pongs and round trips of both legs, and the file that it stands for."""
    backend = await Backend.start(scope, "websockets")
    address = f"127.0.0.1:{free_port()}"
    trial = await Process.start(
        scope, scope.gateway, "try", backend.url, "--listen", address, name="try", stdin=subprocess.DEVNULL
    )
    await trial.line(10, "servers = [")
    port = int(address.rsplit(":", 1)[1])
    await trial.line(10, f"listening on ws://{address}/")
    client = await connect(scope, port, "/")
    await client.send(9, b"hello")
    while (await within(10, client.receive_data(), "the backend's pong")).payload != b"hello":
        pass
    hearing = asyncio.ensure_future(client.receive_data())
    scope.ending.callback(hearing.cancel)
    for line in (" session  opened: 127.0.0.1 to ", " client   ping sent", " client   pong after "):
        await trial.line(10, line)
    for line in (" upstream ping sent", " upstream pong after "):
        await trial.line(10, line)
    hearing.cancel()
    client.reset()
    await trial.line(10, ": client_gone, ")


async def browser_example(scope: Scope) -> None:
    """The page comes back by itself after its gateway was lost, and tells the code of a lost backend."""
    if not shutil.which("chromium"):
        raise Skip("chromium is not installed")
    first = await Backend.start(scope, "websockets")
    gateway = await Gateway.start(scope, route("page", first.url))
    page = await Process.start(
        scope, *command("page_chromium.mjs"), REPOSITORY / "examples" / "browser" / "index.html",
        gateway.url("/page/echo"), name="page", env=node_environment(),
    )
    await page.event(40, event="open")
    await first.process.event(5, event="open")
    await first.process.kill()
    lost = await page.event(10, event="closed")
    require("1012 upstream connection lost" in lost["text"], f"what the page shows: {lost['text']}")
    await Process.start(
        scope, *command("backend_websockets.py"), "127.0.0.1", first.port, name="second", env=node_environment()
    )
    await page.event(40, event="open", count=2)


def cases() -> list[Case]:
    functions = (
        *(shipped_configuration, readme_configurations, readme_recipes, readme_python_client),
        *(readme_node_client, readme_console, rust_examples),
        *(mistakes_are_told_at_once, legacy_backend_example, try_shows_the_heartbeat, browser_example),
    )
    return [Case(f"documentation/{f.__name__}", f, limit=300) for f in functions]
