"""Sends the files `ask-N.json` of a folder one after the other, and writes what comes back beside them.

`ask-N.json` holds `nodes`, `type`, `document`, `files` (paths by name), `timeout` in seconds, and `signature`. Of each
reply there is `answer-N-NODE.json` with its document, or the error, and `answer-N-NODE-NAME` for each of its files;
`done-N.json` comes last, with the seconds that it took. The file `end` ends the run.
"""

import json
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Until there is a file `end`."""
    folder = Path(str(context.run_config["folder"]))
    number = 0
    while not (folder / "end").exists():
        asked = folder / f"ask-{number}.json"
        if not asked.exists():
            time.sleep(0.05)
            continue
        _round(grid, folder, number, json.loads(asked.read_text()))
        number += 1


def _round(grid: Grid, folder: Path, number: int, asked: dict) -> None:
    start = time.monotonic()
    files = {
        name: Array("uint8", (Path(path).stat().st_size,), "profl.file", Path(path).read_bytes())
        for name, path in asked["files"].items()
    }
    order = {"json": asked["document"].encode()}
    if asked.get("signature"):
        order["signature"] = bytes.fromhex(asked["signature"])
    content = RecordDict({"profl": ConfigRecord(order), "files": ArrayRecord(files)})
    messages = [
        Message(content, dst_node_id=node, message_type=asked["type"], ttl=asked["timeout"]) for node in asked["nodes"]
    ]
    answers = 0
    for reply in grid.send_and_receive(messages, timeout=asked["timeout"]):
        answers += 1
        name = f"answer-{number}-{reply.metadata.src_node_id}"
        if reply.has_error():
            (folder / f"{name}.json").write_text(json.dumps({"error": [reply.error.code, reply.error.reason]}))
            continue
        for file, array in reply.content["files"].items():
            (folder / f"{name}-{file}").write_bytes(array.data)
        (folder / f"{name}.json").write_bytes(reply.content["profl"]["json"])
    done = folder / f"done-{number}.tmp"
    done.write_text(json.dumps({"seconds": time.monotonic() - start, "answers": answers}))
    done.rename(folder / f"done-{number}.json")
