"""What people write: the export takes it and trains it as PyTorch does, or names it and what works."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the reference is PyTorch eager")

from device_profiles.errors import UsageError  # noqa: E402
from device_profiles.manifest import Loss  # noqa: E402
from edge_runtime.export.plan.block_model import BlockModel  # noqa: E402
from edge_runtime.export.verify.verify import verify  # noqa: E402
from tests.support.probes import PROBES, REFUSED, Probe  # noqa: E402


def _export(probe: Probe) -> None:
    torch.manual_seed(3)
    module = probe.make()
    model = BlockModel.of(
        module, name="probe", batch=4, input_shape=probe.input_shape, classes=4, input_dtype=probe.input_dtype
    )
    verify(module, model, Loss())


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_people_write_trains_as_in_pytorch(name: str) -> None:
    torch.set_num_threads(1)
    _export(PROBES[name])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_with_its_line_and_what_works(name: str) -> None:
    probe, refusal = REFUSED[name]
    with pytest.raises(UsageError, match=refusal) as raised:
        _export(probe)
    assert "\n" not in str(raised.value) and "(line " in str(raised.value)
