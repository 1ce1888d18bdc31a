"""The declaration that a parameter is orthogonal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from projunn_lightning.constraint.check import check, check_finite
from projunn_lightning.constraint.record import Constraint, remember
from projunn_lightning.errors import ConstraintError, one_of
from projunn_lightning.functional.init import INITS
from projunn_lightning.linalg import full_precision

ModuleT = TypeVar("ModuleT", bound=nn.Module)

if TYPE_CHECKING:
    Init = str
else:
    Init = Literal[("polar", *INITS)]  # the help of the command shows these choices


def orthogonal(module: ModuleT, name: str = "weight", *, init: Init = "polar", chunks: int = 1) -> ModuleT:
    """Declare a parameter of any module orthogonal (real) or unitary (complex), and make it so.

    :class:`~projunn_lightning.ProjUNN` or :class:`~projunn_lightning.Projector` then keeps the parameter orthogonal or
    unitary during training. It stays a plain ``nn.Parameter`` under its own name. A weight of more than two dimensions
    is a batch of matrices, but a convolution's kernel is one matrix ``(out, rest)``. A tall matrix gets orthonormal
    columns, and a wide matrix gets orthonormal rows.

    Args:
        module: the module that owns the parameter.
        name: the name of the parameter in the module.
        init: ``"polar"`` for the nearest unitary matrix to the present values; or ``"haar"``, ``"identity"``,
            ``"henaff"`` or ``"cayley"``, see :mod:`projunn_lightning.functional.init`.
        chunks: the number of matrices that are stacked along dim 0. It is 4 for ``nn.LSTM.weight_hh_l0`` and 3 for the
            ``in_proj_weight`` of ``nn.MultiheadAttention``.

    Returns:
        The module itself.

    Raises:
        ConstraintError: if the module has no such parameter, if the parameter is not a matrix of dtype float32,
            float64, complex64 or complex128, if ``chunks`` does not divide its rows, if ``init`` is unknown, or if
            ``init="polar"`` finds values that are not finite. The weight is unchanged then.

    >>> layer = orthogonal(nn.Linear(3, 3), init="identity")
    >>> layer.weight.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    one_of("init", init, ("polar", *INITS), ConstraintError)
    parameter = module._parameters.get(name)
    if parameter is None:
        own = ", ".join(n for n, p in module._parameters.items() if p is not None and p.ndim >= 2) or "none"
        raise ConstraintError(f"{type(module).__name__} has no parameter {name!r}; its matrices: {own}")
    constraint = Constraint.on(module, chunks)
    full = f"{type(module).__name__}.{name}"
    check(full, parameter, constraint)
    initialise_(full, parameter, constraint, init)
    remember(module, name, constraint)
    return module


@torch.no_grad()
@full_precision()
def initialise_(name: str, parameter: Tensor, constraint: Constraint, init: Init = "polar") -> None:
    """Fill a parameter's matrices in place.

    Args:
        name: the parameter's name, for messages.
        parameter: the parameter.
        constraint: how the parameter is viewed as matrices.
        init: ``"polar"`` for the nearest unitary matrix to the present values, or a name of
            :data:`projunn_lightning.functional.init.INITS`.

    Raises:
        ConstraintError: if ``init`` is ``"polar"`` and the present values are not finite. For a sharded parameter also
            if it is singular, or if ``init`` is not ``"polar"``.
    """
    matrices = constraint.matrices(parameter)
    if init not in INITS:
        check_finite(name, parameter, constraint)
        if not matrices.nearest_unitary_():
            raise ConstraintError(
                f"{name} is sharded and singular or nearly singular, so that its nearest unitary matrix cannot be "
                "found; initialise it by another matrix"
            )
    elif (whole := matrices.whole()) is not None:
        whole.copy_(INITS[init](torch.empty_like(whole)))
    else:
        raise ConstraintError(
            f"init {init!r} of {name} needs the whole weight, which is sharded already: declare it with "
            "projunn_lightning.orthogonal before fully_shard or parallelize_module"
        )
    matrices.store_(parameter)
