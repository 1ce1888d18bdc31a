"""The adjoint of the orthogonal convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import circular_unpad
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
        left, right, top, bottom = pad = self._pad
        height, width = (side * step for side, step in zip(input.shape[-2:], self.stride, strict=True))
        if self.padding_mode == "circular" and (height < max(top, bottom) or width < max(left, right)):
            raise ProjUNNError(
                f"with circular padding, the sides of the output must be at least half of the kernel = "
                f"{self.kernel_size}, found {height} x {width}: use larger images, or set padding_mode to 'zeros'"
            )
        output = F.conv_transpose2d(input, kernel, stride=self.stride, groups=self.groups)
        if self.padding_mode == "circular":
            return circular_unpad(output, pad)
        return output[..., top : top + height, left : left + width]
