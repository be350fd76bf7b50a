"""Rounds of small messages to all nodes, some of which are never answered."""

import json
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()
_WAIT_SECONDS = 20.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """As the file says that the run was given as its fleet."""
    asked = json.loads(Path(str(context.run_config["fleet"])).read_text())
    while len(nodes := sorted(grid.get_node_ids())) < asked["clients"]:
        time.sleep(0.2)
    data = b"w" * asked["bytes"]
    for number in range(asked["rounds"]):
        files = ArrayRecord({"weights/unit0": Array("uint8", (len(data),), "profl.file", data)})
        document = json.dumps({"round": number}).encode()
        content = RecordDict({"profl": ConfigRecord({"json": document}), "files": files})
        messages = [Message(content, dst_node_id=node, message_type="train.task", ttl=3600.0) for node in nodes]
        waiting, late = set(grid.push_messages(messages)), time.monotonic() + _WAIT_SECONDS
        while len(waiting) > asked["unanswered"] and time.monotonic() < late:
            waiting -= {reply.metadata.reply_to_message_id for reply in grid.pull_messages(waiting)}
            time.sleep(0.2)
        print(f"round {number + 1}: {len(waiting)} of {len(messages)} not answered", flush=True)
        Path(str(context.run_config["run"]), "rounds").write_text(str(number + 1))
