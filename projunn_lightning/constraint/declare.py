"""The declaration that a parameter is orthogonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor, nn

from projunn_lightning._compat import plain_name, uncompiled
from projunn_lightning.constraint.check import check, check_finite, is_vector
from projunn_lightning.constraint.known import constraint_on, refuse_renormalised
from projunn_lightning.constraint.record import Stack, owner_of, remember
from projunn_lightning.errors import ConstraintError, one_of
from projunn_lightning.functional.init import INITS
from projunn_lightning.linalg import full_precision

ModuleT = TypeVar("ModuleT", bound=nn.Module)

if TYPE_CHECKING:
    Init = str
else:
    Init = Literal[("polar", *INITS)]  # the help of the command shows these choices


def orthogonal(
    module: ModuleT, name: str = "weight", *, init: Init = "polar", chunks: int | Sequence[int] | None = None
) -> ModuleT:
    """Declare a parameter of any module orthogonal (real) or unitary (complex), and make it so.

    :class:`~projunn_lightning.ProjUNN` or :class:`~projunn_lightning.Projector` then keeps the parameter orthogonal or
    unitary during training. It stays a plain ``nn.Parameter`` under its own name. A weight of more than two dimensions
    is a batch of matrices, but a convolution's kernel is one matrix ``(out, rest)``. A tall matrix gets orthonormal
    columns, and a wide matrix gets orthonormal rows.

    Args:
        module: the module that has the parameter. It may be compiled by ``torch.compile``.
        name: the name of the parameter in the module, such as ``"weight"`` or ``"encoder.weight_hh_l0"``.
        init: ``"polar"`` for the nearest unitary matrix to the present values; or ``"haar"``, ``"haar_so"``,
            ``"identity"``, ``"henaff"`` or ``"cayley"``, see :mod:`projunn_lightning.functional.init`. Training keeps
            the determinant of a real square weight, 1 or -1, because no path leads from one to the other.
        chunks: the matrices that are stacked along dim 0: their number, such as 3 for a fused projection to queries,
            keys and values, or the number of heads; or a list of the number of rows of each, such as
            ``[512, 128, 128]``. The stacked weights of torch's own modules need no ``chunks``: there is one matrix for
            each gate of ``nn.LSTM``, ``nn.GRU`` and their cells, for each projection of ``nn.MultiheadAttention``, and
            for each group of a convolution. Every other weight is one matrix.

    Returns:
        The module itself.

    Raises:
        ConstraintError: if the module has no such parameter, if the parameter is not a matrix of dtype float32,
            float64, complex64 or complex128, if ``chunks`` does not divide its rows, if ``init`` is unknown, if
            ``init="polar"`` finds values that are not finite, or if it is the weight of an ``nn.Embedding`` with
            ``max_norm``. The weight is unchanged then.

    >>> layer = orthogonal(nn.Linear(3, 3), init="identity")
    >>> layer.weight.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    one_of("init", init, ("polar", *INITS), ConstraintError)
    kind = type(uncompiled(module)).__name__
    try:
        parameter = module.get_parameter(name)
    except AttributeError:
        own = ", ".join(plain_name(n) for n, p in module.named_parameters() if not is_vector(p)) or "none"
        raise ConstraintError(f"{kind} has no parameter {name!r}; its matrices: {own}") from None
    owner, leaf = owner_of(module, name)
    full = f"{kind}.{name}"
    refuse_renormalised(full, owner)
    constraint = constraint_on(owner, leaf, chunks)
    check(full, parameter, constraint)
    if init not in INITS:
        for stack in constraint.stacks:  # before the first of them is changed
            check_finite(full, parameter, stack)
    for stack in constraint.stacks:
        initialise_(full, parameter, stack, init)
    remember(owner, leaf, constraint)
    return module


@torch.no_grad()
@full_precision()
def initialise_(name: str, parameter: Tensor, stack: Stack, init: Init = "polar") -> None:
    """Fill matrices of a parameter in place.

    Args:
        name: the parameter's name, for messages.
        parameter: the parameter.
        stack: the matrices of the parameter.
        init: ``"polar"`` for the nearest unitary matrix to the present values, or a name of
            :data:`projunn_lightning.functional.init.INITS`.

    Raises:
        ConstraintError: if ``init`` is ``"polar"`` and the present values are not finite. For a sharded parameter also
            if it is singular, or if ``init`` is not ``"polar"``.
    """
    part = stack.part(parameter)
    matrices = stack.matrices_of_part(part)
    if init not in INITS:
        check_finite(name, parameter, stack)
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
    matrices.store_(part)
