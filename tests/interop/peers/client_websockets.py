"""Client on Python `websockets`: plays scenarios (see scenario.mjs). Extra fields: headers, deflate, local address, ca."""
import asyncio
import json
import logging
import ssl
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import Opcode


def say(**event) -> None:
    print(json.dumps(event | {"at": time.monotonic()}), flush=True)


class Pings(logging.Handler):
    """Tells of each ping frame that the library receives."""

    def __init__(self, number: int):
        super().__init__(logging.DEBUG)
        self.number = number

    def emit(self, record) -> None:
        if record.msg == "< %s" and getattr(record.args[0], "opcode", None) is Opcode.PING:
            say(event="ping", id=self.number)


def payload(message: dict):
    if message["kind"] == "text":
        text, size = message.get("text"), message.get("size", 0)
        return text if text is not None else ("pulsegate \u2713 0123456789 " * (size // 23 + 1))[:size]
    size = message["size"]
    return bytes((i * 7 + (i >> 8)) & 255 for i in range(size))


def pieces(data, count: int):
    size = -(-len(data) // count)
    return [data[i * size : (i + 1) * size] for i in range(count)]


async def play(scenario: dict, finish: asyncio.Future) -> dict:
    number = scenario["id"]
    outcome = {"opened": False, "protocol": "", "extensions": "", "texts": [], "echoed": True, "close": None, "clean": None}
    logger = logging.Logger(f"client {number}", logging.DEBUG)
    logger.addHandler(Pings(number))
    options = {"logger": logger, "ping_interval": None, "proxy": None, "max_size": 64 * 2**20, "close_timeout": 10}
    options["additional_headers"] = scenario.get("headers", {})
    options["subprotocols"] = scenario.get("protocols")
    if not scenario.get("deflate", True):
        options["compression"] = None
    if local := scenario.get("local"):
        options["local_addr"] = (local, 0)
    if scenario["url"].startswith("wss:"):
        options["ssl"] = ssl.create_default_context(cafile=scenario["ca"])
    sent = [payload(message) for message in scenario.get("send", [])]
    wanted = scenario.get("receive", len(sent))
    try:
        connection = await connect(scenario["url"], **options)
    except (InvalidHandshake, OSError, TimeoutError) as error:
        return outcome | {"error": str(error)}
    outcome["opened"] = True
    outcome["protocol"] = connection.subprotocol or ""
    outcome["extensions"] = connection.response.headers.get("Sec-WebSocket-Extensions", "")
    say(event="open", id=number)
    received = 0
    try:
        for message, data in zip(scenario.get("send", []), sent):
            await connection.send(pieces(data, message["fragments"]) if message.get("fragments") else data)
        while received < wanted:
            got = await connection.recv()
            if scenario.get("echo") and got != sent[received]:
                outcome["echoed"] = False
            if isinstance(got, str) and len(got) < 20000:
                outcome["texts"].append(got)
            received += 1
        if scenario.get("hold"):
            closed = asyncio.ensure_future(connection.wait_closed())
            await asyncio.wait({closed, finish}, return_when=asyncio.FIRST_COMPLETED)
            await connection.send("still here")
            outcome["texts"].append(await connection.recv())
        if close := scenario.get("close"):
            await connection.close(close["code"], close["reason"])
        while True:
            await connection.recv()
    except ConnectionClosed:
        pass
    await connection.wait_closed()
    if received < wanted:
        outcome["echoed"] = False
    clean = connection.close_code != 1006
    return outcome | {"received": received, "close": {"code": connection.close_code, "reason": connection.close_reason}, "clean": clean}


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    finishers: dict[int, asyncio.Future] = {}
    tasks = set()
    say(event="ready")

    async def run(scenario: dict) -> None:
        try:
            outcome = await play(scenario, finishers[scenario["id"]])
        except Exception as error:  # told to the runner rather than lost
            outcome = {"error": repr(error)}
        say(event="outcome", id=scenario["id"], **outcome)

    while line := await reader.readline():
        command = json.loads(line)
        if "finish" in command:
            finishers[command["finish"]].set_result(None)
            continue
        finishers[command["id"]] = loop.create_future()
        task = asyncio.create_task(run(command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
