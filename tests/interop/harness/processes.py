"""Child processes: started, listened to, and ended by their own id."""
import asyncio
import itertools
import json
import os
import random
import signal
import socket
from collections.abc import Iterator

from .case import Failure, Scope


class Process:
    """A child whose output lines are kept, with the time each came."""

    def __init__(self, child: asyncio.subprocess.Process, name: str):
        self.child = child
        self.name = name
        self.lines: list[str] = []
        self.events: list[dict] = []
        self._news = asyncio.Condition()
        self._readers = [
            asyncio.ensure_future(self._read(stream)) for stream in (child.stdout, child.stderr) if stream
        ]

    @classmethod
    async def start(cls, scope: Scope, *command, name: str, namespace: str | None = None, **options) -> "Process":
        """Starts a command; `namespace` names a network namespace (`ip netns exec` keeps the id)."""
        if namespace:
            command = ("ip", "netns", "exec", namespace, *command)
        options.setdefault("stdin", asyncio.subprocess.PIPE)
        child = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**22,
            **options,
        )
        process = cls(child, name)
        scope.ending.push_async_callback(process.end)
        process.log = scope.folder / f"{name}-{child.pid}.log"
        return process

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child.returncode is None

    async def _read(self, stream) -> None:
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip("\n")
            with open(self.log, "a", encoding="utf-8") as log:
                log.write(text + "\n")
            async with self._news:
                self.lines.append(text)
                if text.startswith("{"):
                    try:
                        event = json.loads(text)
                    except ValueError:
                        pass
                    else:
                        self.events.append(event)
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    def find(self, **wanted) -> list[dict]:
        """Events that have these values."""
        return [e for e in self.events if all(e.get(key) == value for key, value in wanted.items())]

    async def event(self, seconds: float, count: int = 1, **wanted) -> dict:
        """The `count`-th event with these values."""
        await self._until(lambda: len(self.find(**wanted)) >= count, seconds, f"event {wanted}")
        return self.find(**wanted)[count - 1]

    async def line(self, seconds: float, text: str) -> str:
        """The first line that holds the text."""
        await self._until(lambda: any(text in line for line in self.lines), seconds, f"a line with {text!r}")
        return next(line for line in self.lines if text in line)

    async def _until(self, condition, seconds: float, what: str) -> None:
        async def wait():
            async with self._news:
                while not condition():
                    if all(reader.done() for reader in self._readers):
                        raise Failure(f"{self.name} ended before {what}: {self.tail()}")
                    await self._news.wait()

        try:
            await asyncio.wait_for(wait(), seconds)
        except asyncio.TimeoutError:
            raise Failure(f"{self.name} gave no {what} within {seconds:g} s: {self.tail()}") from None

    def tail(self) -> str:
        return " | ".join(self.lines[-3:]) or "no output"

    def tell(self, message: dict) -> None:
        """Writes one JSON line to the child."""
        self.child.stdin.write(json.dumps(message).encode() + b"\n")

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    async def end(self) -> None:
        """SIGTERM, then SIGKILL."""
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            if self.running:
                self.signal(signal.SIGCONT)
                self.signal(number)
                try:
                    await asyncio.wait_for(self.child.wait(), patience)
                except asyncio.TimeoutError:
                    continue
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.signal(signal.SIGKILL)
        await self.child.wait()


def _unasked_ports() -> Iterator[int]:
    """Ports below those the kernel gives to who asks for any, each once, from a place of this run's own."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as limits:
        below = int(limits.read().split()[0])
    ports = range(10_000, below) if below > 12_000 else range(20_000, 60_000)
    first = random.randrange(len(ports))
    yield from itertools.chain(ports[first:], ports[:first])


_unasked = _unasked_ports()


def free_port(address: str = "127.0.0.1") -> int:
    """A port nobody listens on now, and that nobody is given by chance before it is used; never the same one twice."""
    for port in _unasked:
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise RuntimeError("all ports were given away")


def tcp_table(pid: int) -> list[tuple[str, int, str, int, str, int]]:
    """(local, port, remote, port, state, inode) of each IPv4 socket in the process's network namespace."""
    rows = []
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
        for line in list(table)[1:]:
            fields = line.split()
            rows.append((*_address(fields[1]), *_address(fields[2]), fields[3], int(fields[9])))
    return rows


def _address(text: str) -> tuple[str, int]:
    host, port = text.split(":")
    return socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)


def socket_inodes(pid: int) -> set[int]:
    """Inodes of the sockets that a process holds open."""
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def connections_from(pid: int, remote: str, local_port: int | None = None) -> int:
    """Descriptors that the process holds of connections with a remote address."""
    held = socket_inodes(pid)
    return sum(
        1
        for row in tcp_table(pid)
        if row[2] == remote and row[5] in held and local_port in (None, row[1])
    )
