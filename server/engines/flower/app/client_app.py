"""The device side of the app, for stock SuperNodes: the handlers of `profl-edge join` in Flower's own client.

The node config says what `profl-edge join` has as options: `data` and `memory-limit`, and where they are needed `name`,
`state-dir`, `server-key` and `threads`. The limit is that of a training alone: Flower's own processes, which take a
quarter of a gigabyte, are not counted.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from device_profiles.errors import FormatError, UsageError
from device_profiles.federation import FILE_TYPE, FILES, JSON, ORDER, SIGNATURE, SentFile
from device_profiles.sizes import parse_size
from edge_runtime.device.federation.child import OwnUse
from edge_runtime.device.federation.count_examples import count_examples
from edge_runtime.device.federation.device import Device
from edge_runtime.device.federation.handling import handle
from edge_runtime.device.federation.journal import Journal
from edge_runtime.device.federation.memory import peak_bytes
from edge_runtime.device.federation.permission import Permission
from edge_runtime.device.federation.pressure import MemoryPressure
from edge_runtime.device.federation.set_up import user_folder
from edge_runtime.device.federation.settings import Settings
from edge_runtime.device.federation.state import StateFolder
from edge_runtime.device.federation.store import FileStore
from edge_runtime.device.fleet_api.keys import ServerKey

app = ClientApp()


@app.query("device")
def device(message: Message, context: Context) -> Message:
    """Who this device is."""
    return _handled(message, context)


@app.query("profile")
def profile(message: Message, context: Context) -> Message:
    """Measure programs."""
    return _handled(message, context)


@app.train("task")
def train(message: Message, context: Context) -> Message:
    """Train."""
    return _handled(message, context)


def _handled(message: Message, context: Context) -> Message:
    device = _device(context)
    order = message.content[ORDER]
    raw, signature = order.get(JSON), order.get(SIGNATURE)
    record = message.content.get(FILES)
    files = record if isinstance(record, ArrayRecord) else ArrayRecord()
    if not isinstance(raw, bytes) or not isinstance(signature, bytes | None):
        raise FormatError("the server's message: holds no order")

    def fetch(name: str, path: Path, sent: SentFile) -> None:
        if name not in files:
            raise FormatError(f"the server's order: has no file '{ascii(name[:80])[1:-1]}'")
        path.write_bytes(files[name].data)

    with device.state.held():
        seconds = message.metadata.ttl
        answered = handle(device, message.metadata.message_type, raw, signature, fetch, seconds=seconds)
        content = RecordDict({ORDER: ConfigRecord({JSON: answered.document})})
        if answered.files:
            arrays = ArrayRecord()
            for name, path in answered.files.items():
                data = path.read_bytes()
                arrays[name] = Array("uint8", (len(data),), FILE_TYPE, data)
            content[FILES] = arrays
        device.state.finish()
    return Message(content, reply_to=message)


def _device(context: Context) -> Device:
    """What the node config says, for one message: Flower starts a process for each."""
    config = context.node_config
    for key in ("data", "memory-limit"):
        if key not in config:
            raise UsageError(f"node config: {key} is missing; start the SuperNode with --node-config '{key}=...'")
    name = str(config.get("name", f"node-{context.node_id:x}"))
    limit = parse_size(str(config["memory-limit"]))
    threads = config.get("threads")
    settings = Settings(
        name=name,
        address="127.0.0.1:1",  # Flower's own client has the connection
        data=str(config["data"]),
        limit_bytes=limit,
        threads=None if threads is None else int(threads),
    )
    state = StateFolder(Path(str(config.get("state-dir", user_folder() / name))))
    state.make()
    server_key = config.get("server-key")
    use = OwnUse()
    return Device(
        settings=settings,
        state=state,
        store=FileStore(state.files, settings.cache_bytes),
        journal=Journal(as_json=False),
        permission=Permission((), None, own_seconds=use.seconds, root=Path("/")),
        pressure=MemoryPressure(Path("/")),
        release=version("profl-edge"),
        examples=count_examples(settings.data),
        budget=lambda: limit,
        peak=peak_bytes,
        use=use,
        server_key=None if server_key is None else ServerKey(Path(str(server_key)).read_bytes()),
    )
