"""Runs the Autobahn-derived suite and writes its verdicts.

    suite.py client ws://127.0.0.1:9001 OUT.json [EXCLUDED ...]     the suite is the client
    suite.py server 9005 OUT.json [EXCLUDED ...]                    the suite is the server, until /updateReports

OUT.json: {case: [behaviour, behaviour at the close, close code that the suite received]}
"""
import asyncio
import json
import os
import pathlib
import sys

import kosoku


async def verdicts(mode: str, target: str, excluded: list[str]):
    try:
        if mode == "client":
            return await kosoku.run_fuzzingclient(target, None, excluded or None)
        async with kosoku.run_fuzzingserver(None, excluded or None, host="127.0.0.1", port=int(target)) as server:
            print(json.dumps({"event": "listening"}), flush=True)
            return await server.get_result()
    except kosoku.FailureError as failure:
        return failure.results


mode, target, out, *excluded = sys.argv[1:]
results = asyncio.run(verdicts(mode, target, excluded))
found = {r.case_id: [r.behavior.value, r.behavior_close.value, r.remote_close_code] for r in results}
pathlib.Path(out).write_text(json.dumps(found))
# kosoku 0.1.0 now and then aborts while the interpreter ends; the verdicts are written.
sys.stdout.flush()
os._exit(0 if found else 1)
