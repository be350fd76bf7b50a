"""The section of the fleet file about differential privacy."""

from __future__ import annotations

from typing import Annotated

import msgspec

PositiveNumber = Annotated[float, msgspec.Meta(gt=0)]


class PrivacySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gaussian noise on the mean of clipped updates (DP-FedAvg, McMahan et al., ICLR 2018), for each device as a whole.

    Attributes:
        clip_norm: length (L2) that the whole move of an update is cut down to.
        noise_multiplier: standard deviation of the noise on the sum of the moves, as a multiple of `clip_norm`.
        delta: of the guarantee whose epsilon is reported.
    """

    clip_norm: PositiveNumber
    noise_multiplier: PositiveNumber
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-5
