"""The weights and the kernel of a local orthogonal convolution, which the convolution and its transpose share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import gcd
from typing import ClassVar, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from projunn_lightning._compat import in_torch_func
from projunn_lightning.errors import ProjUNNError, at_least, one_of, pair
from projunn_lightning.functional import orthogonal_kernel
from projunn_lightning.linalg import full_precision, gathered
from projunn_lightning.nn._declaration import declare
from projunn_lightning.nn._precision import conversion, layer_dtype

PaddingMode = Literal["circular", "zeros"]
Init = Literal["haar", "haar_so", "identity"]
_AUTOCAST = {torch.float32, torch.float16, torch.bfloat16}  # what torch.autocast converts to each other


class _Kept(NamedTuple):
    """A kernel, and the values of the parameters from which it was assembled."""

    parameters: list[Tensor]
    kernel: Tensor


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values on one device; torch refuses to compare those of two devices."""
    return one.device == other.device and torch.equal(one, other)


class LocalKernel(nn.Module):
    """The base class of :class:`OrthogonalConv2d`, which has the docs of the arguments, and of its transpose."""

    transposed: ClassVar[bool]
    """Whether the layer applies the adjoint of the convolution, and so leads from small images to large ones."""

    weight: Tensor
    bases: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        *,
        padding_mode: PaddingMode = "circular",
        groups: int = 1,
        bias: bool = True,
        init: Init = "haar",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size)
        self.stride = pair(stride)
        self.padding_mode: PaddingMode = padding_mode
        self.groups = groups
        self.init: Init = init
        self._kept: _Kept | None = None
        self._check_options()
        dtype = layer_dtype(dtype)
        inputs, outputs = (n // groups for n in self._inputs_and_outputs)
        patch = self.stride[0] * self.stride[1]
        mixed = max(inputs, outputs) if patch == 1 else inputs
        steps = sum(self.kernel_size) - sum(self.stride)
        self._bases_shape = (steps, groups, mixed, mixed // 2)
        self.weight = nn.Parameter(torch.empty(groups * outputs, patch * inputs, dtype=dtype, device=device))
        # A kernel as large as the stride has no steps, and the steps of a single channel only move it.
        bases = torch.empty(self._bases_shape, dtype=dtype, device=device)
        self.register_parameter("bases", nn.Parameter(bases) if bases.numel() else None)
        values = torch.empty(out_channels, dtype=dtype, device=device)
        self.register_parameter("bias", nn.Parameter(values) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all matrices anew, and set the bias to zero."""
        declare(self, "weight", self.init, self.groups)
        if self.bases is not None:
            declare(self, "bases", "haar")
            if self.init == "identity":  # with one basis for all, the steps cancel in pairs
                with torch.no_grad():
                    self.bases.copy_(self.bases[:1].clone().expand_as(self.bases))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve images ``(B, in_channels, H, W)``, or one image ``(in_channels, H, W)``.

        Raises:
            ProjUNNError: if the input has another shape, or with circular padding, if its sides do not fit.
        """
        self._check_input(input)
        kernel = self._present_kernel()
        converted = torch.is_autocast_enabled(input.device.type) and {input.dtype, kernel.dtype} <= _AUTOCAST
        if input.dtype != kernel.dtype and not converted:
            raise ProjUNNError(f"input must have the dtype of the layer, {kernel.dtype}, found {input.dtype}")
        output = self._convolve(input, kernel)
        return output if self.bias is None else output + self.bias.to(output.dtype).view(-1, 1, 1)

    @abstractmethod
    def _convolve(self, input: Tensor, kernel: Tensor) -> Tensor:
        """Apply the kernel without the bias."""

    def kernel(self) -> Tensor:
        """The ordinary kernel, assembled from the parameters; gradients flow back to them.

        Its shape is that of the weight of ``torch.nn.Conv2d`` or ``torch.nn.ConvTranspose2d``. If the parameters are
        sharded, every process must call this method, and gets the whole kernel.
        """
        weight, bases = gathered(self.weight), gathered(self.bases)
        weight = weight.unflatten(0, (self.groups, -1))
        bases = weight.new_empty(self._bases_shape) if bases is None else bases
        # The compiler cannot follow full_precision, which reads and sets switches of torch.
        compiling = torch.compiler.is_compiling()
        with torch.autocast(weight.device.type, enabled=False) if compiling else full_precision():
            kernel = orthogonal_kernel(weight, bases, self.kernel_size, self.stride)
        if self.transposed and kernel.is_complex():
            # With conj(), the gradient could be a lazy conjugate, which torch's optimizers refuse.
            kernel = torch.complex(kernel.real, -kernel.imag)
        return kernel

    def _present_kernel(self) -> Tensor:
        """The kernel for a forward pass: in evaluation without gradients, the kept one while the weights are the same.

        The values are compared, because a version counter misses changes through ``weight.data``.
        """
        parameters = [self.weight] if self.bases is None else [self.weight, self.bases]
        differentiable = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)
        traced = torch.compiler.is_compiling() or in_torch_func()
        if self.training or differentiable or traced:
            return self.kernel()
        kept = self._kept
        if kept is None or not all(map(_same, kept.parameters, parameters)):
            # Not an inference tensor, because a later call may need the gradient of its input.
            with torch.inference_mode(False), torch.no_grad():
                kept = self._kept = _Kept([parameter.clone() for parameter in parameters], self.kernel())
        return kept.kernel

    def train(self, mode: bool = True) -> Self:
        self._kept = None  # frees its memory
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kept = None
        return super()._apply(conversion(fn, self), recurse)

    @property
    def _inputs_and_outputs(self) -> tuple[int, int]:
        """The numbers of channels of the large and of the small images."""
        return (self.out_channels, self.in_channels) if self.transposed else (self.in_channels, self.out_channels)

    @property
    def _pad(self) -> tuple[int, int, int, int]:
        """The pixels by which an image is continued at the left, the right, the top and the bottom.

        At the left and the top they are as many as in ``torch.nn.Conv2d``.
        """
        (height, width), (down, right) = self.kernel_size, self.stride
        top, left = ((n - 1) // 2 if step == 1 else (n - step + 1) // 2 for n, step in ((height, down), (width, right)))
        return left, width - right - left, top, height - down - top

    def _check_input(self, input: Tensor) -> None:
        if input.ndim not in (3, 4) or input.shape[-3] != self.in_channels:
            raise ProjUNNError(
                f"input must be (B, {self.in_channels}, H, W) or ({self.in_channels}, H, W), found {tuple(input.shape)}"
            )

    def _check_options(self) -> None:
        at_least(1, in_channels=self.in_channels, out_channels=self.out_channels, groups=self.groups)
        at_least(1, kernel_size=min(self.kernel_size), stride=min(self.stride))
        one_of("padding_mode", self.padding_mode, get_args(PaddingMode))
        one_of("init", self.init, get_args(Init))
        if gcd(self.in_channels, self.out_channels) % self.groups:
            raise ProjUNNError(
                f"groups must divide in_channels = {self.in_channels} and out_channels = {self.out_channels}, found "
                f"{self.groups}"
            )
        if any(size < step for size, step in zip(self.kernel_size, self.stride, strict=True)):
            raise ProjUNNError(
                f"kernel_size must be at least the stride = {self.stride}, found {self.kernel_size}: a smaller kernel "
                "would leave out pixels"
            )

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"groups={self.groups}"] if self.groups > 1 else []
        parts += ["padding_mode=zeros"] if self.padding_mode == "zeros" else []
        return ", ".join(parts)
