"""The dtype of a layer: when it is made, and when a module changes its precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
_HALF = (torch.float16, torch.bfloat16)
_REMEDY = (
    "Keep it in float32 or float64; mixed precision (torch.autocast, precision='bf16-mixed' or '16-mixed') computes "
    "the products that can be computed so in half precision"
)


def layer_dtype(dtype: torch.dtype | None, *, complex: bool = False) -> torch.dtype:
    """The dtype of a new layer: the given one, or torch's default dtype.

    Args:
        dtype: the dtype that the user gave; None for the default.
        complex: whether the default is the complex dtype of the same precision.

    Raises:
        ProjUNNError: if it is not a real or complex dtype in single or double precision.
    """
    if dtype is None:
        default = torch.get_default_dtype()
        dtype = default.to_complex() if complex else default
    if dtype not in (*REAL, *COMPLEX):
        raise ProjUNNError(
            f"dtype must be float32, float64, complex64 or complex128, found {dtype}: a weight cannot stay orthogonal "
            f"in half precision. {_REMEDY}"
        )
    return dtype


def conversion(fn: Callable[[Tensor], Tensor], layer: nn.Module, *, half: bool = False) -> Callable[[Tensor], Tensor]:
    """Extend a conversion of ``Module._apply``, such as that of ``double()`` or ``to(...)``, to complex tensors.

    A complex tensor gets the precision that a real one gets. Torch's own conversions leave complex tensors in the
    precision that they have, or drop their imaginary parts (``to(torch.float64)``).

    Args:
        fn: the conversion.
        layer: the layer that is converted.
        half: whether the layer can compute in half precision while it is real.

    Raises:
        ProjUNNError: if the layer could not compute with the result.
    """
    name = type(layer).__name__
    for tensor in (*layer.parameters(), *layer.buffers()):
        new = _new_dtype(fn, tensor)
        if new.is_complex and not tensor.is_complex():
            raise ProjUNNError(
                f"{name} cannot be converted to {new}, because its real parameters would become complex: float() and "
                "double() change the precision, and a complex layer is made by the option dtype"
            )
        if new in _HALF and (tensor.is_complex() or not half):
            kind = "a complex " if tensor.is_complex() else ""
            raise ProjUNNError(f"{kind}{name} cannot compute in half precision, found {new}. {_REMEDY}")

    def convert(tensor: Tensor) -> Tensor:
        if not tensor.is_complex() or _new_dtype(fn, tensor) in (tensor.dtype.to_real(), *COMPLEX):
            return fn(tensor)
        return torch.complex(fn(tensor.real), fn(tensor.imag))

    return convert


def _new_dtype(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> torch.dtype:
    """The dtype to which a conversion would change a tensor, or the real part of a complex one."""
    dtype = tensor.dtype.to_real() if tensor.is_complex() else tensor.dtype
    return fn(torch.empty(0, dtype=dtype, device=tensor.device)).dtype
