"""A backend that leaves its first frame unfinished.  half_frame.py HOST PORT

Says `half` once 100 of 1000 bytes are out, and then nothing.
"""
import asyncio
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from harness.frames import BINARY, RawBackend, frame_bytes  # noqa: E402


class Forever:
    """Stands in for a case's scope: nothing ends before the process does."""

    class ending:
        callback = staticmethod(lambda _: None)


async def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    backend = RawBackend()
    await backend.start(Forever(), host, port)
    print(json.dumps({"event": "listening"}), flush=True)
    while True:
        _, wire = await backend.sessions.get()
        wire.writer.write(frame_bytes(BINARY, bytes(1000))[:104])
        await wire.writer.drain()
        print(json.dumps({"event": "half"}), flush=True)


asyncio.run(main())
