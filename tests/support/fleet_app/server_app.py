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
    waiting, answers = set(grid.push_messages(messages)), 0
    while waiting and time.monotonic() < start + asked["timeout"]:
        for reply in grid.pull_messages(waiting):
            answers += 1
            waiting.discard(reply.metadata.reply_to_message_id)
            _keep(reply, folder / f"answer-{number}-{reply.metadata.src_node_id}")
        time.sleep(0.2)
    done = folder / f"done-{number}.tmp"
    done.write_text(json.dumps({"seconds": time.monotonic() - start, "answers": answers}))
    done.rename(folder / f"done-{number}.json")


def _keep(reply: Message, name: Path) -> None:
    if reply.has_error():
        document = json.dumps({"error": [reply.error.code, reply.error.reason]}).encode()
    else:
        document = reply.content["profl"]["json"]
        for file, array in reply.content["files"].items():
            name.with_name(f"{name.name}-{file}").write_bytes(array.data)
    temporary = name.with_name(f"{name.name}.tmp")
    temporary.write_bytes(document)
    temporary.rename(name.with_name(f"{name.name}.json"))
