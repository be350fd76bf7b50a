"""Log-mel features of a sound, with numpy.

Frames of 25 ms begin every 10 ms; none reaches beyond the end. Each is multiplied by a periodic Hann window and
transformed (FFT of the next power of two). The power of its frequencies is weighted by triangles whose corners are
spaced evenly on the mel scale `2595 log10(1 + f / 700)` between 20 Hz and half the sample rate. The feature is
`log(power + 1e-6)`.
"""

from __future__ import annotations

import importlib
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import float32, float64
    from numpy.typing import NDArray

_WINDOW_SECONDS = 0.025
_HOP_SECONDS = 0.010
_LOWEST_HERTZ = 20.0
_FLOOR = 1e-6


class LogMel:
    """The features of one sample rate and number of bands. Raises ImportError without numpy."""

    def __init__(self, rate: int, mels: int) -> None:
        self._np: Any = importlib.import_module("numpy")
        self._window = round(_WINDOW_SECONDS * rate)
        self._hop = round(_HOP_SECONDS * rate)
        self._fft = 1 << (self._window - 1).bit_length()
        self._hann = 0.5 - 0.5 * self._np.cos(2 * self._np.pi * self._np.arange(self._window) / self._window)
        self._weights = _triangles(self._np, rate, self._fft, mels)

    def frames(self, samples: int) -> int:
        """How many frames as many samples have."""
        return 1 + (samples - self._window) // self._hop

    def features(self, samples: array[float]) -> NDArray[float32]:
        """The features [mels, frames], of samples between -1 and 1."""
        np = self._np
        views = np.lib.stride_tricks.sliding_window_view(np.asarray(samples, np.float64), self._window)
        spectrum = np.fft.rfft(views[:: self._hop] * self._hann, self._fft)
        power = self._weights @ (spectrum.real**2 + spectrum.imag**2).T
        features: NDArray[float32] = np.log(power + _FLOOR).astype(np.float32)
        return features


def _triangles(np: Any, rate: int, fft: int, mels: int) -> NDArray[float64]:
    """What each frequency counts in each band, [mels, fft / 2 + 1]."""
    ends = 2595 * np.log10(1 + np.array([_LOWEST_HERTZ, rate / 2]) / 700)
    corners = 700 * (10 ** (np.linspace(*ends, mels + 2) / 2595) - 1)
    frequencies = np.arange(fft // 2 + 1) * rate / fft
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    weights: NDArray[float64] = np.clip(np.minimum(rising, falling), 0, None)
    return weights
