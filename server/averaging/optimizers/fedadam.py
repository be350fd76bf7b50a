"""FedAdam: steps as of Adam, on the server."""

from __future__ import annotations

from server.averaging.optimizers.adaptive import Adaptive, Moment


class FedAdam(Adaptive):
    """v is a moving average of the squares (Reddi et al., ICLR 2021)."""

    def second_moment(self, v: Moment, squares: Moment, beta2: float) -> Moment:
        """beta2 v + (1 - beta2) d^2."""
        moment: Moment = beta2 * v + (1 - beta2) * squares
        return moment
