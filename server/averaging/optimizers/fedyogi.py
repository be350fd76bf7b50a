"""FedYogi: steps as of Yogi, on the server."""

from __future__ import annotations

import numpy as np

from server.averaging.optimizers.adaptive import Adaptive, Moment


class FedYogi(Adaptive):
    """v goes towards the squares by a share of these, so that it falls slowly (Reddi et al., ICLR 2021)."""

    def second_moment(self, v: Moment, squares: Moment, beta2: float) -> Moment:
        """v - (1 - beta2) d^2 sign(v - d^2)."""
        moment: Moment = v - (1 - beta2) * squares * np.sign(v - squares)
        return moment
