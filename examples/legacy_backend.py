"""A legacy backend: FastAPI under uvicorn with its WebSocket pings turned off.

    pip install fastapi uvicorn websockets
    python examples/legacy_backend.py            # ws://127.0.0.1:8000, any path, echoes text
    pulsegate try ws://127.0.0.1:8000            # in another terminal: now it is behind the gateway

By itself it never learns that a client has vanished (a phone in a tunnel, a laptop that sleeps): its handler waits for
ever. Behind the gateway the handler ends, and prints `client disconnected`, within the detection time that
`pulsegate check` prints.
"""
import sys

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/{path:path}")
async def echo(socket: WebSocket, path: str = "") -> None:
    await socket.accept()
    print("client connected", flush=True)
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect as end:
        print(f"client disconnected: {end.code} {end.reason}", flush=True)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    uvicorn.run(app, host="127.0.0.1", port=port, ws_ping_interval=None, ws_ping_timeout=None)
