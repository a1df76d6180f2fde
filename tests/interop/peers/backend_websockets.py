"""Backend on Python `websockets`.  backend_websockets.py HOST PORT [CERTIFICATE KEY]

By path: /echo; /fragments echoes in three fragments; /headers tells the request's headers; /control closes as told
(`close CODE REASON`). Pings every session only where the path says so: /pings.
"""
import asyncio
import json
import logging
import os
import ssl
import sys
import time

os.environ.setdefault("WEBSOCKETS_MAX_FRAGMENTS", str(2**20))

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode


def say(**event) -> None:
    print(json.dumps(event | {"at": time.monotonic()}), flush=True)


class Pings(logging.Handler):
    """Tells of each ping frame that the library receives."""

    def emit(self, record) -> None:
        if record.msg == "< %s" and getattr(record.args[0], "opcode", None) is Opcode.PING:
            say(event="ping", path=record.websocket.request.path)


def thirds(message):
    size = -(-len(message) // 3)
    return [message[i * size : (i + 1) * size] for i in range(3)]


async def handle(connection) -> None:
    path = connection.request.path
    headers = list(connection.request.headers.raw_items())
    session = connection.request.headers.get("X-Request-Id")
    deflate = bool(connection.protocol.extensions)
    say(event="open", path=path, session=session, deflate=deflate, headers=headers)
    try:
        if path.startswith("/headers"):
            await connection.send(json.dumps(headers))
        async for message in connection:
            if path.startswith("/control"):
                _, code, reason = message.split(" ", 2)
                await connection.close(int(code), reason)
            elif path.startswith("/fragments"):
                await connection.send(thirds(message))
            else:
                await connection.send(message)
    except ConnectionClosed:
        pass
    await connection.wait_closed()
    say(event="closed", path=path, session=session, code=connection.close_code, reason=connection.close_reason)


async def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    logger = logging.Logger("backend", logging.DEBUG)
    logger.addHandler(Pings(logging.DEBUG))

    def choose(_, offered):
        return "chat.v2" if "chat.v2" in offered else None

    context = None
    if len(sys.argv) > 3:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*sys.argv[3:5])
    async with serve(
        handle, host, port, ssl=context, logger=logger, ping_interval=None, max_size=64 * 2**20,
        select_subprotocol=choose, close_timeout=30,
    ) as server:
        say(event="listening")
        await server.serve_forever()


asyncio.run(main())
