"""Functions of images [N, 6, 8, 8], for the middle of an odd network: complex numbers, and changes in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fft, nn
from torch.nn import functional


def _turned(x: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.unflatten(3, (-1, 2)).contiguous()) * 1j).flatten(3)


def _rotary(x: Tensor) -> Tensor:
    angles = torch.outer(torch.arange(8.0), torch.tensor([1.0, 0.5, 0.25, 0.125]))
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(3, (-1, 2)).contiguous()) * turns).flatten(3)


def _filtered(x: Tensor) -> Tensor:
    kept = torch.view_as_complex(torch.stack((torch.linspace(1, 0, 5), torch.linspace(0, 1, 5)), -1))
    return fft.irfft2(fft.rfft2(x, norm="ortho") * kept, norm="ortho")


def _odd_length(x: Tensor) -> Tensor:
    spectrum = fft.rfft(x[..., :7], norm="forward")
    return functional.pad(fft.irfft(spectrum * spectrum.conj(), n=7, norm="forward"), (0, 1))


def _mixed_with_itself(x: Tensor) -> Tensor:
    spectrum = fft.rfft(x, dim=2)
    return fft.irfft(torch.einsum("nchw,nckw->nchk", spectrum, spectrum), n=6, dim=1)


def _spectrogram(x: Tensor) -> Tensor:
    window = torch.hann_window(16)
    spectrum = torch.stft(x.flatten(1)[:, :200], 16, 8, window=window, return_complex=True, center=False)
    return (spectrum.abs() ** 2 + 1e-3).log().flatten(1)[:, :192].reshape(-1, 3, 8, 8).repeat(1, 2, 1, 1)


def _quotient(x: Tensor) -> Tensor:
    spectrum = fft.fft(x, n=16, dim=-1)
    return fft.ifft(spectrum / (spectrum.abs() + 2 + 1j), dim=-1).imag[..., :8]


def _part_of_the_examples_view(x: Tensor) -> Tensor:
    y = (2 * x).reshape(-1, 2, 3, 8, 8).transpose(1, 2)
    y *= torch.arange(8.0)
    return y.flatten(1, 2)


def _zeroed(x: Tensor) -> Tensor:
    y = 2 * x
    y[:, 1].zero_()
    return y


COMPLEX: dict[str, Callable[[Tensor], Tensor]] = {
    "complex": _turned,
    "complex_rotary": _rotary,
    "fourier": lambda x: fft.fft(fft.fft(x, dim=-1), dim=1).real,
    "fourier_of_several": lambda x: fft.fftn(x, dim=(1, 2, 3)).real / 16,
    "fourier_of_real": lambda x: fft.rfft(x, n=14).abs(),
    "fourier_and_back": lambda x: fft.ifft2(2 * fft.fft2(x)).real,
    "fourier_filter": _filtered,
    "fourier_of_odd_length": _odd_length,
    "fourier_product": _mixed_with_itself,
    "fourier_quotient": _quotient,
    "fourier_of_hermitian": lambda x: fft.hfft(x, n=8),
    "complex_exponential": lambda x: torch.exp(torch.complex(0.1 * x, x)).real,
    "spectrogram": _spectrogram,
}
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "view_multiplied_in_place": _part_of_the_examples_view,
    "part_zeroed_in_place": _zeroed,
}


class WithNeedless(nn.Module):
    """A branch that nothing follows from, with statistics of its own and an operator that no kernel computes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6, 8, 8] -> [N, 6, 8, 8]."""
        self.norm(x).lgamma()
        return 2 * x
