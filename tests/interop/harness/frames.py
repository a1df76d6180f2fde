"""A WebSocket peer down to the byte: it says and hears frames exactly, and obeys no rule by itself."""
import asyncio
import base64
import dataclasses
import hashlib
import os
import ssl

from .case import Scope

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def masked(payload: bytes, key: bytes) -> bytes:
    """The payload with a masking key laid over it (RFC 6455 section 5.3)."""
    if not payload:
        return b""
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(payload), "big")


def frame_bytes(opcode: int, payload: bytes = b"", *, fin=True, rsv1=False, key: bytes | None = None) -> bytes:
    """One frame as it stands on the wire (RFC 6455 section 5.2)."""
    head = bytes([opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)])
    mask = 0x80 if key else 0
    if len(payload) < 126:
        head += bytes([mask | len(payload)])
    elif len(payload) < 65536:
        head += bytes([mask | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + len(payload).to_bytes(8, "big")
    return head + (key + masked(payload, key) if key else payload)


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


@dataclasses.dataclass
class Frame:
    opcode: int
    payload: bytes
    fin: bool
    rsv1: bool
    key: bytes | None

    @property
    def closing(self) -> tuple[int | None, str]:
        """Code and reason of a close frame."""
        if not self.payload:
            return None, ""
        return int.from_bytes(self.payload[:2], "big"), self.payload[2:].decode()


class Wire:
    """An upgraded byte stream. `client` says who we are: a client masks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bool):
        self.reader, self.writer, self.client = reader, writer, client

    async def send(self, opcode: int, payload: bytes = b"", **options) -> None:
        if self.client:
            options.setdefault("key", os.urandom(4))
        self.writer.write(frame_bytes(opcode, payload, **options))
        await self.writer.drain()

    async def receive(self) -> Frame:
        """The next frame, of whatever kind. EOF and resets are `EOFError` and `ConnectionError`."""
        head = await self.reader.readexactly(2)
        length = head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        key = await self.reader.readexactly(4) if head[1] & 0x80 else None
        payload = await self.reader.readexactly(length)
        return Frame(head[0] & 15, masked(payload, key) if key else payload, bool(head[0] & 0x80), bool(head[0] & 0x40), key)

    async def receive_data(self) -> Frame:
        """The next frame that is no ping; pings are answered."""
        while (frame := await self.receive()).opcode == PING:
            await self.send(PONG, frame.payload)
        return frame

    def reset(self) -> None:
        """Ends the connection without a closing handshake."""
        self.writer.transport.abort()


@dataclasses.dataclass
class Head:
    """The head of a request or response, byte by byte."""

    raw: bytes

    @property
    def lines(self) -> list[str]:
        return self.raw.decode("latin-1").split("\r\n")[:-2]

    @property
    def status(self) -> int:
        return int(self.lines[0].split()[1])

    def all(self, name: str) -> list[str]:
        pairs = [line.split(":", 1) for line in self.lines[1:]]
        return [value.strip() for key, value in pairs if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


async def request(
    port: int,
    path: str,
    headers: list[str] = (),
    *,
    method: str = "GET",
    tls: ssl.SSLContext | None = None,
    early: bytes = b"",
    host: str | None = None,
    defaults: bool = True,
    limit: int = 2**20,
) -> tuple[Head, Wire]:
    """Sends an opening handshake, spelled as given, and returns the answer's head and the stream behind it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=limit)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}"]
    if defaults:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    writer.write("\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + early)
    await writer.drain()
    return Head(await reader.readuntil(b"\r\n\r\n")), Wire(reader, writer, client=True)


async def connect(scope: Scope, port: int, path: str, headers: list[str] = (), **options) -> Wire:
    """A raw client whose handshake is accepted."""
    head, wire = await asyncio.wait_for(request(port, path, headers, **options), 10)
    if head.status != 101:
        raise AssertionError(f"handshake refused: {head.lines[0]}")
    scope.ending.callback(wire.reset)
    return wire


class RawBackend:
    """A backend that keeps each request's head and leaves the rest to the case."""

    def __init__(self):
        # Each session's request head, and its stream.
        self.sessions: asyncio.Queue[tuple[Head, Wire]] = asyncio.Queue()
        self.extra: list[str] = []
        self.early = b""
        self.port = 0

    async def start(self, scope: Scope, host: str = "127.0.0.1", port: int = 0) -> "RawBackend":
        server = await asyncio.start_server(self._serve, host, port, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        scope.ending.callback(server.close)
        self._scope = scope
        return self

    async def _serve(self, reader, writer) -> None:
        try:
            head = Head(await reader.readuntil(b"\r\n\r\n"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return writer.close()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept_key(head.get('Sec-WebSocket-Key') or '')}", *self.extra]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + self.early)
        wire = Wire(reader, writer, client=False)
        self._scope.ending.callback(wire.reset)
        await self.sessions.put((head, wire))

    async def session(self) -> tuple[Head, Wire]:
        """The next session, at most 10 s from now."""
        return await asyncio.wait_for(self.sessions.get(), 10)
