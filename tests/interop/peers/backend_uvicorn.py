"""The legacy backend: FastAPI under uvicorn, which never pings.  backend_uvicorn.py HOST PORT

Paths as in backend_websockets.py but /fragments, and /feed?bytes=N&every=SECONDS, which sends without being asked.
Its handler ends, and prints `client disconnected`, only if someone tells it that the client is gone.
"""
import asyncio
import contextlib
import json
import sys
import time

import uvicorn
from fastapi import FastAPI, WebSocket

app = FastAPI()


def say(**event) -> None:
    print(json.dumps(event | {"at": time.monotonic()}), flush=True)


async def feed(socket: WebSocket) -> None:
    size, every = int(socket.query_params["bytes"]), float(socket.query_params["every"])
    with contextlib.suppress(Exception):
        while True:
            await socket.send_bytes(b"f" * size)
            await asyncio.sleep(every)


async def answer(socket: WebSocket, path: str, message: dict) -> None:
    text, data = message.get("text"), message.get("bytes")
    if path == "control":
        _, code, reason = text.split(" ", 2)
        await socket.close(int(code), reason)
    elif text is not None:
        await socket.send_text(text)
    else:
        await socket.send_bytes(data)


@app.websocket("/{path:path}")
async def handle(socket: WebSocket, path: str = "") -> None:
    query = socket.scope["query_string"].decode()
    full = f"/{path}" + (f"?{query}" if query else "")
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in socket.headers.raw]
    session = socket.headers.get("x-request-id")
    await socket.accept(subprotocol="chat.v2" if "chat.v2" in socket.scope["subprotocols"] else None)
    deflate = "permessage-deflate" in socket.headers.get("sec-websocket-extensions", "")
    say(event="open", path=full, session=session, deflate=deflate, headers=headers)
    if path == "headers":
        await socket.send_text(json.dumps(headers))
    feeding = asyncio.create_task(feed(socket)) if path == "feed" else None
    code, reason = None, None
    try:
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            await answer(socket, path, message)
        code, reason = message.get("code"), message.get("reason")
    finally:
        if feeding:
            feeding.cancel()
        print("client disconnected", flush=True)
        say(event="closed", path=full, session=session, code=code, reason=reason)


class Server(uvicorn.Server):
    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        say(event="listening")


config = uvicorn.Config(
    app, host=sys.argv[1], port=int(sys.argv[2]), ws_ping_interval=None, ws_ping_timeout=None, ws_max_size=64 * 2**20,
    log_level="critical",
)
Server(config).run()
