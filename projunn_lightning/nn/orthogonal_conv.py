"""The orthogonal convolution: full-width and circular, one matrix a frequency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from projunn_lightning.constraint import orthogonal
from projunn_lightning.errors import ProjUNNError, at_least, pair
from projunn_lightning.functional import assemble_spectrum, circular_convolution, frequency_counts
from projunn_lightning.nn._precision import taking_complex_along

Init = Literal["haar", "identity"]


class OrthogonalConv2d(nn.Module):
    r"""A circular convolution as wide as the image that keeps the norm of every input.

    In the Fourier domain it is one ``out_channels x in_channels`` matrix a frequency. With a complex dtype each of them
    is free and unitary (``weight``). With a real one the kernel is real, and only what that leaves free is a parameter:
    the up to four frequencies that are their own conjugate (both indices 0 or half an even side) hold real orthogonal
    matrices (``weight_real``), the others complex unitary ones (``weight``), and the rest of the half spectrum is
    filled with conjugates. So the real operator is orthogonal exactly, for even and odd sides alike. The constraints
    are declared here; :class:`~projunn_lightning.ProjUNN` or :class:`~projunn_lightning.Projector` keep them.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; more than of the input lift it by an isometry.
        size: height and width of the input, ``(H, W)`` or one number for both.
        stride: keeps every ``stride``-th row and column of the output.
        bias: whether to add a learnable bias a channel.
        init: of the matrices: ``"haar"``, or ``"identity"``, with which the layer hands on its input.
        dtype: float32 or float64 for real images, complex64 or complex128 for complex ones.
        device: of the parameters.

    Raises:
        ValueError: if a number is below 1 or ``out_channels`` below ``in_channels``.

    ``torch.func`` cannot transform the real layer; second derivatives are there.

    Source: Kiani et al. 2022 (convolutions); the conjugate symmetry is that of the discrete Fourier transform.

    >>> layer = OrthogonalConv2d(3, 4, size=(6, 5), bias=False)
    >>> x = torch.randn(2, 3, 6, 5)
    >>> torch.allclose(layer(x).norm(), x.norm())
    True
    """

    weight: Tensor | None
    weight_real: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int | tuple[int, int],
        *,
        stride: int = 1,
        bias: bool = True,
        init: Init = "haar",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.size = pair(size)
        self.stride = stride
        self._check_options(init)
        matrix = (out_channels, in_channels)
        if dtype.is_complex:
            self._declare("weight", torch.empty(self.size[0] * self.size[1], *matrix, dtype=dtype, device=device), init)
        else:
            inner, half, own = frequency_counts(*self.size)
            self._declare("weight_real", torch.empty(own, *matrix, dtype=dtype, device=device), init)
            if inner + half:
                stack = torch.empty(inner + half, *matrix, dtype=dtype.to_complex(), device=device)
                self._declare("weight", stack, init)
            else:  # images of sides 1 and 2
                self.register_parameter("weight", None)
        zeros = torch.zeros(out_channels, dtype=dtype, device=device)
        self.register_parameter("bias", nn.Parameter(zeros) if bias else None)

    def _declare(self, name: str, stack: Tensor, init: Init) -> None:
        self.register_parameter(name, nn.Parameter(stack))
        orthogonal(self, name, init=init)

    @property
    def is_complex(self) -> bool:
        """Whether images, kernel and weights are complex."""
        return "weight_real" not in self._parameters

    def forward(self, input: Tensor) -> Tensor:
        """Convolve images ``(B, in_channels, H, W)`` to ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.

        Raises:
            ValueError: if the input has another shape, or is complex where the layer is real.
        """
        if input.ndim != 4 or input.shape[1:] != (self.in_channels, *self.size):
            raise ProjUNNError(
                f"input must be (B, {self.in_channels}, {self.size[0]}, {self.size[1]}), the size that this layer was "
                f"built for, found {tuple(input.shape)}"
            )
        if input.is_complex() and not self.is_complex:
            raise ProjUNNError(
                "images of a real OrthogonalConv2d must be real; give it a complex dtype for complex ones"
            )
        output = circular_convolution(input, self.weight, self._weight_real)
        if self.stride > 1:
            output = output[..., :: self.stride, :: self.stride]
        return output if self.bias is None else output + self.bias.view(-1, 1, 1)

    @property
    def _weight_real(self) -> Tensor | None:
        return None if self.is_complex else self.weight_real

    def spectrum(self) -> Tensor:
        """The matrices of all frequencies, ``(H * W, out, in)``, or ``(H * (W // 2 + 1), out, in)`` for real images."""
        return assemble_spectrum(self.weight, self._weight_real, *self.size).flatten(0, 1)

    def kernel(self) -> Tensor:
        """The spatial kernel, ``(out_channels, in_channels, H, W)``; entry (0, 0) acts on a pixel's own place.

        ``y[o, n] = sum_(c, m) kernel[o, c, m] x[c, n - m]``, with positions modulo the size.
        """
        return self._to_space(assemble_spectrum(self.weight, self._weight_real, *self.size).permute(2, 3, 0, 1))

    def locality_penalty(self, support: int | tuple[int, int] = 3) -> Tensor:
        """The kernel's energy outside a window around its origin (Kiani et al. 2022, section 4.4), a scalar.

        Args:
            support: height and width of the window, wrapped around the edges; its centre is entry (0, 0).

        Raises:
            ValueError: if the support is below 1.
        """
        at_least(1, support=min(pair(support)))
        energy = self.kernel().abs().square().sum(dim=(0, 1))
        inside = [
            ((torch.arange(n, device=energy.device) + (side - 1) // 2) % n) < side
            for n, side in zip(self.size, pair(support), strict=True)
        ]
        return energy[~(inside[0][:, None] & inside[1])].sum()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(taking_complex_along(fn), recurse)

    def _to_space(self, spectrum: Tensor) -> Tensor:
        return torch.fft.ifft2(spectrum) if self.is_complex else torch.fft.irfft2(spectrum, s=self.size)

    def _check_options(self, init: Init) -> None:
        at_least(1, in_channels=self.in_channels, stride=self.stride, size=min(self.size))
        if init not in get_args(Init):
            raise ProjUNNError(f"unknown init {init!r}, expected {' or '.join(get_args(Init))}")
        if self.out_channels < self.in_channels:
            raise ProjUNNError(
                f"out_channels must be at least in_channels = {self.in_channels}, found {self.out_channels}: fewer "
                "cannot keep the norm of every input"
            )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, size={self.size}, stride={self.stride}"
