"""The client that the suite's server tests: echoes in every case, then asks for the reports.  testee.py URL"""
import asyncio
import contextlib
import os
import sys

os.environ.setdefault("WEBSOCKETS_MAX_FRAGMENTS", str(2**20))

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

OPTIONS = {"max_size": 64 * 2**20, "ping_interval": None, "proxy": None}


async def main(url: str) -> None:
    async with connect(f"{url}/getCaseCount", **OPTIONS) as socket:
        count = int(await socket.recv())
    for case in range(1, count + 1):
        with contextlib.suppress(WebSocketException, OSError):
            async with connect(f"{url}/runCase?case={case}&agent=testee", **OPTIONS) as socket:
                async for message in socket:
                    await socket.send(message)
    # The suite may end before it has closed this one.
    with contextlib.suppress(WebSocketException, OSError):
        async with connect(f"{url}/updateReports?agent=testee", **OPTIONS) as socket:
            async for _ in socket:
                pass


asyncio.run(main(sys.argv[1]))
