"""Views of more dimensions than a tensor of a program has are copied in parts, and every element arrives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="views are PyTorch's")

from edge_runtime.export.operators.copies import Seen, copies_of  # noqa: E402


def _seen(view: torch.Tensor) -> Seen:
    return Seen(tuple(view.shape), tuple(view.stride()), view.storage_offset())


@pytest.mark.parametrize(
    "order", [(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), (9, 3, 7, 1, 5, 0, 2, 8, 6, 4)]
)
@pytest.mark.parametrize("repeated", [False, True])
def test_ten_dimensions_arrive_in_their_order(order: tuple[int, ...], repeated: bool) -> None:
    base = torch.arange(2**9 * 3).reshape(2, 2, 2, 2, 3, 2, 2, 2, 2, 2)
    view = base.permute(order)
    if repeated:
        view = view.unsqueeze(2).expand(*view.shape[:2], 3, *view.shape[2:])
    current = base
    for part in copies_of(_seen(view)):
        assert len(part.sizes) <= 8
        current = current.as_strided(part.sizes, part.strides, part.offset).contiguous()
    assert torch.equal(current.reshape(view.shape), view)


def test_dimensions_that_go_on_evenly_are_one_copy() -> None:
    view = torch.empty(2, 3, 2, 2, 2, 2, 2, 2, 2, 2).transpose(0, 1)
    assert [part.sizes for part in copies_of(_seen(view))] == [(3, 2, 256)]


def test_what_fits_is_copied_as_it_is() -> None:
    seen = _seen(torch.empty(2, 3, 4)[:, ::2])
    assert copies_of(seen) == [seen]


def test_parts_of_every_dimension_are_left_to_the_refusal_of_the_operator() -> None:
    seen = _seen(torch.empty(*[3] * 9)[(slice(0, 2),) * 9])
    assert copies_of(seen) == [seen]
