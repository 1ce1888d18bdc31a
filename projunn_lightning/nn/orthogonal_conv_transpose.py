"""The adjoint of the orthogonal convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.nn._local_kernel import LocalKernel


class OrthogonalConvTranspose2d(LocalKernel):
    r"""The adjoint of an :class:`OrthogonalConv2d`, which leads from small images to large ones.

    The layer is the adjoint of ``OrthogonalConv2d(out_channels, in_channels, ...)`` with the same parameters, whose
    arguments, errors and evaluation it shares. Its output is the input's size multiplied by the stride. With circular
    padding and ``in_channels == out_channels * stride**2`` it is also the inverse;
    :meth:`OrthogonalConv2d.transpose` makes it for a given layer. With ``in_channels`` below that number it keeps the
    norm of every input.

    >>> import torch
    >>> layer = OrthogonalConvTranspose2d(16, 4, 4, stride=2, bias=False)
    >>> layer(torch.randn(2, 16, 4, 6)).shape
    torch.Size([2, 4, 8, 12])
    """

    transposed = True

    def _convolve(self, input: Tensor, kernel: Tensor) -> Tensor:
        before = self._before
        margins = [0, 0]  # the number of pixels of the periodic image beyond each edge that reach the output
        if self.padding_mode == "circular":
            margins = [
                max(-(-(size - 1 - first) // step), (step - 1 + first) // step)
                for size, step, first in zip(self.kernel_size, self.stride, before, strict=True)
            ]
            if any(side < margin for side, margin in zip(input.shape[-2:], margins, strict=True)):
                raise ProjUNNError(
                    f"with circular padding, the image must be at least {margins[0]} x {margins[1]} for the kernel of "
                    f"{self.kernel_size} and the stride {self.stride}, found {tuple(input.shape[-2:])}: use larger "
                    "images, or set padding_mode to 'zeros'"
                )
            input = F.pad(input, [margins[1], margins[1], margins[0], margins[0]], mode="circular")
        output = F.conv_transpose2d(input, kernel, stride=self.stride, groups=self.groups)
        for dim, step, margin, first in zip((-2, -1), self.stride, margins, before, strict=True):
            length = (input.shape[dim] - 2 * margin) * step
            output = output.narrow(dim, margin * step + first, length)
        return output
