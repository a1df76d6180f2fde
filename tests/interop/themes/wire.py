"""What the relay leaves as it is: every byte of a frame, in both directions."""
import zlib

from harness.case import Case, Scope, expect, within
from harness.frames import BINARY, CLOSE, PING, PONG, TEXT, RawBackend, close_payload, connect, frame_bytes
from harness.gateway import Gateway, route

OFFER = "permessage-deflate; client_max_window_bits; server_max_window_bits=12"


async def pair(scope: Scope, headers=(), extra=(), **options):
    """A byte-exact client and a byte-exact backend with a gateway of their own between them."""
    raw = await RawBackend().start(scope)
    raw.extra = list(extra)
    quiet = {"heartbeat__client__ping_interval": "'off'", "heartbeat__upstream__ping_interval": "'off'"}
    gateway = await Gateway.start(scope, route("raw", f"ws://127.0.0.1:{raw.port}", **quiet, **options))
    client = await connect(scope, gateway.ports["ws"], "/raw", headers)
    asked, backend = await raw.session()
    return client, backend, asked


async def crosses(sender, receiver, data: bytes, what: str) -> None:
    """The very bytes that one end writes arrive at the other."""
    sender.writer.write(data)
    await sender.writer.drain()
    got = await within(10, receiver.reader.readexactly(len(data)), what)
    if got != data:
        at = next(i for i, (a, b) in enumerate(zip(got, data)) if a != b)
        expect(got[at : at + 20], data[at : at + 20], f"{what}, from byte {at}")


async def client_frames(scope: Scope) -> None:
    """Masking keys, fragments, control frames between fragments."""
    client, backend, _ = await pair(scope)
    key = b"\x00\xff\x10\x7f"
    for size in (0, 1, 125, 126, 65535, 65536, 300_000):
        await crosses(client, backend, frame_bytes(BINARY, bytes(size), key=key), f"frame of {size}")
    text = "gr\u00fc\u00df \u2713 \U0001f600".encode()
    pieces = [text[:4], text[4:5], b"", text[5:]]
    for i, piece in enumerate(pieces):
        data = frame_bytes(TEXT if i == 0 else 0, piece, fin=i == 3, key=bytes([i, 1, 2, 3]))
        await crosses(client, backend, data, f"fragment {i}")
        await crosses(client, backend, frame_bytes(PING, b"between", key=key), "ping between fragments")
    await crosses(client, backend, frame_bytes(PONG, b"unasked", key=key), "pong")


async def backend_frames(scope: Scope) -> None:
    client, backend, _ = await pair(scope)
    for size in (0, 1, 125, 126, 65535, 65536, 300_000):
        await crosses(backend, client, frame_bytes(BINARY, bytes(size)), f"frame of {size}")
    for i in range(4):
        await crosses(backend, client, frame_bytes(BINARY if i == 0 else 0, b"part", fin=i == 3), f"fragment {i}")
        await crosses(backend, client, frame_bytes(PING, b"between"), "ping between fragments")


async def byte_by_byte(scope: Scope) -> None:
    """A frame whose every byte is a packet of its own."""
    client, backend, _ = await pair(scope)
    data = frame_bytes(TEXT, b"slow but whole", key=b"wxyz")
    for byte in data:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    expect(await within(10, backend.reader.readexactly(len(data)), "the frame"), data, "frame at the backend")


async def compressed(scope: Scope) -> None:
    """An offer and its parameters cross as written, and RSV1 frames cross byte by byte."""
    answer = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=11"
    client, backend, asked = await pair(
        scope, [f"Sec-WebSocket-Extensions: {OFFER}"], [f"Sec-WebSocket-Extensions: {answer}"]
    )
    expect(asked.all("Sec-WebSocket-Extensions"), [OFFER], "the offer at the backend")
    packer = zlib.compressobj(9, zlib.DEFLATED, -11)
    packed = packer.compress(b"pulse" * 1000) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = packed[:-4]
    await crosses(client, backend, frame_bytes(TEXT, packed, rsv1=True, key=b"mask"), "compressed frame up")
    await crosses(backend, client, frame_bytes(TEXT, packed, rsv1=True), "compressed frame down")


async def stripped(scope: Scope) -> None:
    """With `compression = "strip"` the backend sees no offer."""
    _, _, asked = await pair(scope, [f"Sec-WebSocket-Extensions: {OFFER}"], compression="'strip'")
    expect(asked.all("Sec-WebSocket-Extensions"), [], "the offer at the backend")


async def close_frames(scope: Scope) -> None:
    """A close frame and its answer cross untouched, with no code too."""
    for payload in (close_payload(4001, "gr\u00fc\u00df"), close_payload(1000), b"", close_payload(1014, "bad gateway")):
        client, backend, _ = await pair(scope)
        await crosses(client, backend, frame_bytes(CLOSE, payload, key=b"mask"), f"close {payload!r}")
        await crosses(backend, client, frame_bytes(CLOSE, payload), f"answer {payload!r}")
        expect(await within(5, client.reader.read(), "the end of TCP"), b"", "bytes after the close frame")


def cases() -> list[Case]:
    functions = (client_frames, backend_frames, byte_by_byte, compressed, stripped, close_frames)
    return [Case(f"wire/{function.__name__}", function) for function in functions]
