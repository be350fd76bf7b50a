"""An update: the tensors a client trained, as safetensors with this metadata."""

from __future__ import annotations

import msgspec

from device_profiles.errors import FormatError
from device_profiles.wrong_values import explained


class UpdateMetadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the tensors of an update are. `base_version` names the weights the training started from.

    `examples` are those of the data set; `examples_done` is how many were trained on, each as often as it was, None in
    updates of releases that did not say. `stopped_early`: the time given to the training was over before its steps.
    """

    block: int
    program: str
    examples: int
    steps: int
    base_version: str
    loss_first: float
    loss_last: float
    examples_done: int | None = None
    stopped_early: bool = False

    def to_strings(self) -> dict[str, str]:
        """As the string map that a safetensors header carries."""
        return {"profl": msgspec.json.encode(self).decode()}

    @classmethod
    def from_strings(cls, metadata: dict[str, str] | None, source: str) -> UpdateMetadata:
        """Read back from a safetensors header; raises FormatError naming `source`."""
        if not metadata or "profl" not in metadata:
            raise FormatError("not an update: its header has no 'profl' metadata", place=source)
        try:
            return msgspec.json.decode(metadata["profl"], type=cls, strict=True)
        except msgspec.DecodeError as error:
            raise FormatError(f"metadata: {explained(error, cls)}", place=source) from None
