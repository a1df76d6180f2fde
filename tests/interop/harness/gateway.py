"""The gateway under test: its configuration, its process, its verdicts and what `check` says of it."""
import asyncio
import os
import re
import shutil
import subprocess

from . import processes
from .case import Failure, Scope, until

CLOSE_TIMEOUT = 1.0


def listener(address: str, tls: bool = False) -> str:
    """One `[[listener]]`."""
    certificate = '\ntls = { certificate = "tls/chain.pem", key = "tls/key.pem" }' if tls else ""
    return f'[[listener]]\naddress = "{address}"{certificate}\n'


def route(name: str, *servers: str, **options: str) -> str:
    """A route for `/name` and its upstream. Options are TOML, `__` stands for a dot."""
    lines = [f'[[route]]\nname = "{name}"\npath = "/{name}"\nstrip_prefix = true\nupstream = "{name}"']
    lines += [f"{key.replace('__', '.')} = {value}" for key, value in options.items()]
    return "\n".join([*lines, f"[upstream.{name}]", f"servers = [{', '.join(map(repr, servers))}]", ""])


def beats(interval: str, timeout: str, upstream_timeout: str | None = None) -> dict[str, str]:
    """Route options: the heartbeat of both legs."""
    return {
        "heartbeat__client": f'{{ ping_interval = "{interval}", ping_timeout = "{timeout}" }}',
        "heartbeat__upstream": f'{{ ping_interval = "{interval}", ping_timeout = "{upstream_timeout or timeout}" }}',
    }


class Gateway:
    """A running `pulsegate run`."""

    def __init__(self, process: processes.Process, folder, ports: dict[str, int]):
        self.process = process
        self.folder = folder
        self.ports = ports

    @property
    def pid(self) -> int:
        return self.process.pid

    @classmethod
    async def start(
        cls, scope: Scope, *tables: str, namespace: str | None = None, address: str = "127.0.0.1", name="gateway"
    ) -> "Gateway":
        """Starts a gateway with a plain and a TLS listener and the given tables; ready when both listen."""
        folder = scope.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        ports = {scheme: processes.free_port() for scheme in ("ws", "wss")}
        await install_certificates(scope, folder / "tls", address)
        (folder / "gateway.toml").write_text(
            "\n".join(
                [
                    '[log]\nlevel = "info"\nformat = "json"\nsessions = "all"',
                    f'[defaults]\ntimeouts.close = "{CLOSE_TIMEOUT:g}s"',
                    listener(f"{address}:{ports['ws']}"),
                    listener(f"{address}:{ports['wss']}", tls=True),
                    *tables,
                ]
            ).replace("'", '"')
        )
        process = await processes.Process.start(
            scope, scope.gateway, "run", name=name, namespace=namespace, cwd=folder, stdin=subprocess.DEVNULL
        )
        gateway = cls(process, folder, ports)
        for scheme, port in ports.items():
            await process.line(20, f"listening on {scheme}://{address}:{port}/")
        return gateway

    @property
    def ca(self) -> str:
        """The file of the authority that clients must trust."""
        return str(self.folder / "tls" / "ca.pem")

    def url(self, path: str, scheme: str = "ws", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.ports[scheme]}{path}"

    async def verdict(self, session: str, seconds: float = 5) -> dict:
        """The record of how the session with this `X-Request-Id` ended."""

        def records():
            flat = (event.get("fields", event) for event in self.process.events)
            return [e for e in flat if e.get("session") == session and "reason" in e]

        return (await until(records, seconds, f"a verdict of session {session}"))[-1]

    async def check(self, binary) -> str:
        """What `pulsegate check` prints for this gateway's file."""
        child = await asyncio.create_subprocess_exec(
            str(binary), "check", cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = (await child.communicate())[0].decode()
        if child.returncode:
            raise Failure(f"check exits with {child.returncode}: {output}")
        return output


def detection_bound(checked: str, route_name: str, leg: str) -> float:
    """Seconds until a vanished peer is found, as `check` prints them below a route's line and the line of a leg."""
    at_route = at_leg = False
    for line in checked.splitlines():
        if " to upstream " in line:
            at_route, at_leg = f'"{route_name}"' in line, False
        elif line.strip().split(" ")[0] in ("client", "upstream"):
            at_leg = line.strip().startswith(leg)
        if at_route and at_leg and (found := re.search(r"vanishes is found within ([^,]*)", line)):
            return duration(found[1])
    raise Failure(f"check prints no detection time for {route_name}, {leg}:\n{checked}")


def duration(text: str) -> float:
    """Seconds of `1m30s`, `4.2s`, `4s 200ms`."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", text))


async def install_certificates(scope: Scope, folder, address: str) -> None:
    """An authority and a leaf that it signed for `localhost` and `address`, in PEM files; the same for all cases."""

    async def make(owner: Scope):
        made = owner.folder / f"tls-{address}"
        # In a thread: while the event loop stands still, the cases' own peers answer nothing.
        await asyncio.to_thread(make_certificates, made, address)
        return made

    shutil.copytree(await scope.shared(f"certificates {address}", make), folder, dirs_exist_ok=True)


def make_certificates(folder, address: str) -> None:
    folder.mkdir(exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "365", "-subj", "/CN=interop")
    openssl("req", *curve, "-keyout", "key.pem", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "leaf.ext").write_text(
        f"subjectAltName=DNS:localhost,IP:{address}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n"
    )
    openssl(
        *("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"),
        *("-out", "leaf.pem", "-days", "180", "-extfile", "leaf.ext"),
    )
    (folder / "chain.pem").write_bytes((folder / "leaf.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    os.chmod(folder / "key.pem", 0o600)
