"""The orthogonal convolution that is circular and as wide as the image: one matrix for each frequency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least, one_of, pair
from projunn_lightning.functional import assemble_spectrum, circular_convolution, frequency_counts
from projunn_lightning.nn._declaration import declare
from projunn_lightning.nn._precision import conversion, layer_dtype

Init = Literal["haar", "haar_so", "identity"]


class FourierConv2d(nn.Module):
    r"""A circular convolution as wide as the image that keeps the norm of every input.

    In the Fourier domain the layer is one matrix ``(out_channels, in_channels)`` for each frequency. With a complex
    dtype each matrix is unitary and a parameter of its own (``weight``). With a real dtype the kernel is real, and its
    spectrum has conjugate symmetry. The parameters are then the independent matrices only. The up to four frequencies
    that are their own conjugates (both indices are 0 or half of an even side) have real orthogonal matrices
    (``weight_real``), the other independent frequencies have complex unitary matrices (``weight``), and the remaining
    matrices of the half spectrum are conjugates of these. The real operator is therefore exactly orthogonal, for even
    and odd sides. The layer declares the constraints; :class:`~projunn_lightning.ProjUNN` or
    :class:`~projunn_lightning.Projector` keeps them during training.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output, ``in_channels`` or more.
        size: the height and width of the input, ``(H, W)`` or one number for both.
        stride: the layer keeps every ``stride``-th row and column of the output.
        bias: whether to add a learnable bias for each channel.
        init: the initialisation of the matrices: ``"haar"``; ``"haar_so"``; or ``"identity"``, with which the output is
            the input. If a real layer has as many output as input channels, training cannot change the determinants, 1
            or -1, of its self-conjugate frequencies: ``"haar"`` draws them at random, and the others start at 1.
        dtype: float32 or float64 for real images, complex64 or complex128 for complex images; torch's default dtype if
            None.
        device: the device of the parameters. On the meta device they have no values: ``to_empty`` and
            :meth:`reset_parameters` make the layer as it is made on another device.

    Raises:
        ProjUNNError: if a number is below 1, ``out_channels`` is below ``in_channels``, or the dtype is none of these;
            while the module is converted, if it would be in half precision, in which the layer cannot compute.

    Second derivatives and the transforms of ``torch.func`` work.

    Source: Kiani et al. 2022.

    >>> layer = FourierConv2d(3, 4, size=(6, 5), bias=False)
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
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.size = pair(size)
        self.stride = stride
        self.init: Init = init
        self._check_options()
        dtype = layer_dtype(dtype)
        matrix = (out_channels, in_channels)
        if dtype.is_complex:
            frequencies = self.size[0] * self.size[1]
        else:
            inner, half, own = frequency_counts(*self.size)
            self.weight_real = nn.Parameter(torch.empty(own, *matrix, dtype=dtype, device=device))
            frequencies = inner + half
        # Real images of sides 1 and 2 have real frequencies only.
        stack = torch.empty(frequencies, *matrix, dtype=dtype.to_complex(), device=device)
        self.register_parameter("weight", nn.Parameter(stack) if frequencies else None)
        values = torch.empty(out_channels, dtype=dtype, device=device)
        self.register_parameter("bias", nn.Parameter(values) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all matrices anew, and set the bias to zero."""
        for name in ("weight_real", "weight"):
            if self._parameters.get(name) is not None:
                declare(self, name, self.init)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def is_complex(self) -> bool:
        """Whether images, kernel and weights are complex."""
        return "weight_real" not in self._parameters

    def forward(self, input: Tensor) -> Tensor:
        """Convolve images ``(B, in_channels, H, W)`` to ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.

        Raises:
            ProjUNNError: if the input has another shape, or it is complex and the layer is real.
        """
        if input.ndim != 4 or input.shape[1:] != (self.in_channels, *self.size):
            raise ProjUNNError(
                f"input must be (B, {self.in_channels}, {self.size[0]}, {self.size[1]}), the size that this layer was "
                f"built for, found {tuple(input.shape)}"
            )
        if input.is_complex() and not self.is_complex:
            raise ProjUNNError("images of a real FourierConv2d must be real; give it a complex dtype for complex ones")
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
        """The spatial kernel, ``(out_channels, in_channels, H, W)``; entry (0, 0) connects a pixel with itself.

        ``y[o, n] = sum_(c, m) kernel[o, c, m] x[c, n - m]``, with positions modulo the size.
        """
        return self._to_space(assemble_spectrum(self.weight, self._weight_real, *self.size).permute(2, 3, 0, 1))

    def locality_penalty(self, support: int | tuple[int, int] = 3) -> Tensor:
        """The kernel's energy outside a window around its origin (Kiani et al. 2022, section 4.4), a scalar.

        Args:
            support: the height and width of the window, which is centred on entry (0, 0) and wraps around the edges.

        Raises:
            ProjUNNError: if the support is below 1.
        """
        at_least(1, support=min(pair(support)))
        energy = self.kernel().abs().square().sum(dim=(0, 1))
        inside = [
            ((torch.arange(n, device=energy.device) + (side - 1) // 2) % n) < side
            for n, side in zip(self.size, pair(support), strict=True)
        ]
        return energy[~(inside[0][:, None] & inside[1])].sum()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(conversion(fn, self), recurse)

    def _to_space(self, spectrum: Tensor) -> Tensor:
        return torch.fft.ifft2(spectrum) if self.is_complex else torch.fft.irfft2(spectrum, s=self.size)

    def _check_options(self) -> None:
        at_least(1, in_channels=self.in_channels, stride=self.stride, size=min(self.size))
        one_of("init", self.init, get_args(Init))
        if self.out_channels < self.in_channels:
            raise ProjUNNError(
                f"out_channels must be at least in_channels = {self.in_channels}, found {self.out_channels}: fewer "
                "cannot keep the norm of every input"
            )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, size={self.size}, stride={self.stride}"
