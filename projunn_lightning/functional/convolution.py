"""The circular convolution as wide as the image, by one matrix a frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from projunn_lightning.functional import _export
from projunn_lightning.functional._convolution import assemble, convolve, frequency_counts

__all__ = ["assemble_spectrum", "circular_convolution", "frequency_counts"]


def circular_convolution(input: Tensor, weight: Tensor | None, weight_real: Tensor | None = None) -> Tensor:
    """Convolve images circularly by a kernel as wide as they are, given in the Fourier domain.

    Args:
        input: images ``(B, I, H, W)``. They are converted to the precision of the matrices.
        weight: complex matrices. For complex images the matrices of all frequencies, ``(H * W, O, I)``. For real images
            those of the frequencies that are neither their own conjugate nor the conjugate of another one, ``(F, O,
            I)``, where F is the sum of the first two :func:`frequency_counts`; None where F is 0.
        weight_real: for real images, the real matrices of the frequencies that are their own conjugate, ``(G, O, I)``,
            where G is the last of the :func:`frequency_counts`; None for complex images.

    Returns:
        Images ``(B, O, H, W)``, real where ``weight_real`` is given.

    Second derivatives and the transforms of ``torch.func`` work. A model that is being exported contains torch's
    operators on real numbers alone.

    Source: Kiani et al. 2022 (convolutions); the conjugate symmetry is that of the discrete Fourier transform.
    """
    height, width = input.shape[-2:]
    if weight_real is not None and not input.is_complex():
        input = input.to(weight_real.dtype)
    if torch.compiler.is_exporting():
        return _export.convolve(input, _spectrum_pair(weight, weight_real, height, width), real=weight_real is not None)
    if weight_real is None:
        assert weight is not None
        columns = torch.fft.fft2(input.to(weight.dtype)).flatten(2).permute(2, 1, 0)  # one product a frequency
        return torch.fft.ifft2((weight @ columns).permute(2, 1, 0).unflatten(2, (height, width)))
    return convolve(input, _weight_or_empty(weight, weight_real), weight_real)


def assemble_spectrum(weight: Tensor | None, weight_real: Tensor | None, height: int, width: int) -> Tensor:
    """The matrices of all frequencies, in the order of ``fft2`` or, for real images, of ``rfft2``.

    Args:
        weight: see :func:`circular_convolution`.
        weight_real: see :func:`circular_convolution`.
        height: H.
        width: W.

    Returns:
        Complex matrices ``(H, W, O, I)``, or ``(H, W // 2 + 1, O, I)`` for real images.
    """
    if weight_real is None:
        assert weight is not None
        return weight.unflatten(0, (height, width))
    weight = _weight_or_empty(weight, weight_real)
    inner = frequency_counts(height, width)[0]
    return assemble((weight[:inner], weight[inner:], weight_real), height, width)


def _weight_or_empty(weight: Tensor | None, weight_real: Tensor) -> Tensor:
    """The complex matrices, or a stack of none of them: images whose sides are 1 or 2 have real frequencies only."""
    if weight is not None:
        return weight
    return weight_real.new_empty(0, *weight_real.shape[1:], dtype=weight_real.dtype.to_complex())


def _spectrum_pair(weight: Tensor | None, weight_real: Tensor | None, height: int, width: int) -> _export.Pair:
    """:func:`assemble_spectrum` as its real and its imaginary part."""
    if weight_real is None:
        assert weight is not None
        real, imag = _export.view_as_pair(weight)
        return real.unflatten(0, (height, width)), imag.unflatten(0, (height, width))
    real, imag = _export.view_as_pair(_weight_or_empty(weight, weight_real))
    inner = frequency_counts(height, width)[0]
    return (
        assemble((real[:inner], real[inner:], weight_real), height, width),
        assemble((imag[:inner], imag[inner:], torch.zeros_like(weight_real)), height, width, mirror=torch.neg),
    )
