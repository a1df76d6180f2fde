"""An application on one port: pages, REST, an upload, server-sent events and a WebSocket.  backend_pages.py HOST PORT"""
import asyncio
import hashlib
import json
import sys

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, StreamingResponse

app = FastAPI()
PAGE = """<!doctype html><title>pages</title><script>
async function prove() {
  const seen = {};
  const item = await fetch('/items/7?wanted=yes', { method: 'PUT', headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ name: 'é' }) });
  seen.item = await item.json();
  const missing = await fetch('/nothing');
  seen.missing = missing.status;
  const upload = await fetch('/upload', { method: 'POST', body: new Uint8Array(5_000_000).fill(7) });
  seen.upload = await upload.json();
  seen.events = await new Promise((resolve) => {
    const heard = [], source = new EventSource('/events');
    source.onmessage = ({ data }) => {
      heard.push(data);
      if (heard.length === 3) { source.close(); resolve(heard); } else { fetch('/heard', { method: 'POST' }); }
    };
  });
  seen.socket = await new Promise((resolve) => {
    const socket = new WebSocket(location.href.replace('http', 'ws') + 'socket');
    socket.onopen = () => socket.send('hello');
    socket.onmessage = ({ data }) => { resolve(data); socket.close(); };
    socket.onerror = () => resolve('error');
  });
  return seen;
}
</script>"""


def say(**event) -> None:
    print(json.dumps(event), flush=True)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.put("/items/{number}")
async def item(number: int, wanted: str, request: Request) -> dict:
    return {"number": number, "wanted": wanted, "body": await request.json(), "client": request.client.host}


@app.post("/upload")
async def upload(request: Request) -> dict:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


heard = asyncio.Event()


@app.post("/heard")
async def heard_one() -> None:
    heard.set()


@app.get("/events")
async def events() -> StreamingResponse:
    async def stream():
        try:
            for number in range(1000):
                heard.clear()
                yield f"data: {number}\n\n"
                # The next one waits for the page's word on this one: an event that is held back somewhere ends the test.
                await heard.wait()
        finally:
            say(event="events ended")

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.websocket("/socket")
async def socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"{await socket.receive_text()} {socket.client.host}")
    await socket.close()


class Server(uvicorn.Server):
    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        say(event="listening")


Server(uvicorn.Config(app, host=sys.argv[1], port=int(sys.argv[2]), log_level="critical")).run()
