"""The orthogonal convolution with a small kernel and a stride."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import circular_pad
from projunn_lightning.linalg import gathered
from projunn_lightning.nn._local_kernel import LocalKernel
from projunn_lightning.nn.orthogonal_conv_transpose import OrthogonalConvTranspose2d


class OrthogonalConv2d(LocalKernel):
    r"""A convolution with a small kernel whose singular values are all 1.

    The layer is called and shaped like :class:`torch.nn.Conv2d`, for images of any size. Its parameters are matrices
    with orthonormal columns or rows (``weight`` and ``bases``), from which each forward pass assembles the kernel, see
    :func:`~projunn_lightning.functional.orthogonal_kernel`. The layer declares the constraints;
    :class:`~projunn_lightning.ProjUNN` or :class:`~projunn_lightning.Projector` keeps them during training.

    With ``out_channels >= in_channels * stride**2`` the layer keeps the norm of every input. With fewer channels it
    keeps the norm of the part of the input that it does not lose, and its adjoint keeps the norm of every output. In
    both cases its operator norm is 1.

    In evaluation without gradients the layer keeps the assembled kernel while the parameters have the same values. On
    a GPU the comparison waits for the device; :meth:`fold` returns a layer that compares nothing.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output.
        kernel_size: the height and width of the kernel, ``(H, W)`` or one number for both, at least the stride.
        stride: the distance of neighbouring patches, ``(h, w)`` or one number for both.
        padding_mode: ``"circular"``: the image goes on at its opposite edge, its sides are multiples of the stride, and
            all singular values are 1. ``"zeros"``: the image is surrounded by zeros. Then its norm can shrink at the
            edges, and the operator norm is at most 1. With both, the output is the input's size divided by the stride.
        groups: the number of groups of channels that are convolved separately, as in :class:`torch.nn.Conv2d`.
        bias: whether to add a learnable bias for each channel.
        init: the initialisation of the matrices. ``"haar"`` draws all of them at random, and ``"haar_so"`` those of
            ``weight`` with the determinant 1. With ``"identity"`` the kernel has the middle tap only (for an odd kernel
            and a stride of 1), and ``weight`` is the identity or its first rows or columns: with as many output as
            input channels, the output is the input.
        dtype: float32 or float64, or complex64 or complex128 for complex images; torch's default dtype if None.
        device: the device of the parameters. On the meta device they have no values: ``to_empty`` and
            :meth:`reset_parameters` make the layer as it is made on another device.

    Raises:
        ProjUNNError: if a number is below 1, ``kernel_size`` is below the stride, ``groups`` does not divide the
            numbers of channels, or the dtype is none of these; while the module is converted, if it would be in half
            precision, in which the kernel would not be orthogonal.

    Source: Li et al. 2019, arXiv 1911.00937 (BCOP); Boissin et al. 2025, arXiv 2501.07930 (strides).

    >>> layer = OrthogonalConv2d(3, 16, 3, stride=2, bias=False)
    >>> x = torch.randn(2, 3, 8, 12)
    >>> layer(x).shape
    torch.Size([2, 16, 4, 6])
    >>> torch.allclose(layer(x).norm(), x.norm())
    True
    """

    transposed = False

    def _convolve(self, input: Tensor, kernel: Tensor) -> Tensor:
        left, right, top, bottom = self._pad
        if self.padding_mode == "circular":
            self._check_sides(*input.shape[-2:])
            return F.conv2d(circular_pad(input, self._pad), kernel, stride=self.stride, groups=self.groups)
        # With a stride of 1, torch.nn.Conv2d(padding="same") adds what is missing to the right and the bottom.
        missing = (0, right - left if self.stride[1] == 1 else 0, 0, bottom - top if self.stride[0] == 1 else 0)
        input = F.pad(input, missing) if any(missing) else input
        return F.conv2d(input, kernel, stride=self.stride, padding=(top, left), groups=self.groups)

    def _check_sides(self, height: int, width: int) -> None:
        left, right, top, bottom = self._pad
        if height % self.stride[0] or width % self.stride[1] or height < max(top, bottom) or width < max(left, right):
            raise ProjUNNError(
                f"with circular padding, the sides of the image must be multiples of the stride = {self.stride} and at "
                f"least half of the kernel = {self.kernel_size}, found {height} x {width}: pad or resize the images, "
                "or set padding_mode to 'zeros'"
            )

    def transpose(self) -> OrthogonalConvTranspose2d:
        """The adjoint of the layer without its bias; both share the parameters.

        With circular padding and ``out_channels == in_channels * stride**2`` it is the inverse.

        >>> layer = OrthogonalConv2d(3, 12, 4, stride=2, bias=False)
        >>> x = torch.randn(1, 3, 8, 8)
        >>> torch.allclose(layer.transpose()(layer(x)), x, atol=1e-5)
        True
        """
        with torch.device("meta"):
            layer = OrthogonalConvTranspose2d(
                self.out_channels,
                self.in_channels,
                self.kernel_size,
                self.stride,
                padding_mode=self.padding_mode,
                groups=self.groups,
                bias=False,
                init=self.init,
                dtype=self.weight.dtype,
            )
        layer.register_parameter("weight", self._parameters["weight"])
        layer.register_parameter("bases", self._parameters["bases"])
        return layer.train(self.training)

    @torch.no_grad()
    def fold(self) -> nn.Conv2d:
        """A plain convolution with the same outputs, for inference without this library.

        Its weight is a copy of the kernel, which is no longer orthogonal after further training. If the parameters
        are sharded, every process must call this method.
        """
        kernel, size, before = self.kernel(), list(self.kernel_size), (self._pad[2], self._pad[0])
        padding: str | tuple[int, int] = "same" if self.stride == (1, 1) else before
        if padding != "same":
            for dim in (0, 1):  # torch.nn.Conv2d pads an even kernel with a stride of 1 by "same" only
                if self.stride[dim] == 1 and size[dim] % 2 == 0:
                    kernel = torch.cat([torch.zeros_like(kernel.narrow(2 + dim, 0, 1)), kernel], 2 + dim)
                    size[dim] += 1
            padding = (before[0] + size[0] - self.kernel_size[0], before[1] + size[1] - self.kernel_size[1])
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            (size[0], size[1]),
            self.stride,
            padding=padding,
            groups=self.groups,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            dtype=kernel.dtype,
            device="meta",  # draws no random numbers
        ).to_empty(device=kernel.device)
        plain.weight.copy_(kernel)
        if self.bias is not None and plain.bias is not None:
            plain.bias.copy_(gathered(self.bias))
        return plain.train(self.training)
