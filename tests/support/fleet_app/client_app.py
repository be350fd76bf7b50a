"""The same app for a stock SuperNode: it sends back what it was sent."""

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def _echo(message: Message, context: Context) -> Message:
    files = message.content["files"]
    content = RecordDict({"profl": ConfigRecord({"json": b'{"stock": true}'}), "files": ArrayRecord(dict(files))})
    return Message(content, reply_to=message)


@app.train("task")
def train(message: Message, context: Context) -> Message:
    """`train.task`."""
    return _echo(message, context)


@app.query("device")
def query(message: Message, context: Context) -> Message:
    """`query.device`."""
    return _echo(message, context)
