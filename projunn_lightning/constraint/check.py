"""Checks that a parameter can be constrained, and the unitarity errors of constrained parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projunn_lightning.constraint.record import Constraint, Stack
from projunn_lightning.errors import ConstraintError
from projunn_lightning.linalg import full_precision, generator_for, matrices_of, reshard

FLAT_REMEDY = (
    "FSDP1 and DeepSpeed flatten parameters; shard by FSDP2 instead: strategy=ModelParallelStrategy(), with "
    "torch.distributed.fsdp.fully_shard in the LightningModule's configure_model"
)
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
_LARGE = 512  # for a larger smaller side, the exact unitarity error takes as long as many training steps


def is_vector(parameter: Tensor) -> bool:
    """Whether a parameter has fewer than two dimensions. One that is not materialised yet may become a matrix."""
    return not isinstance(parameter, nn.parameter.UninitializedParameter) and parameter.ndim < 2


def check(name: str, parameter: Tensor, constraint: Constraint) -> None:
    """Check that a parameter can be viewed as matrices of a full-precision dtype.

    Raises:
        ConstraintError: if it cannot.
    """
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ConstraintError(f"{name} is not materialised yet; run a batch through the lazy module first")
    if parameter.is_meta:
        raise ConstraintError(f"{name} is on the meta device and has no values yet; declare it once it is materialised")
    if parameter.dtype not in _DTYPES:
        raise ConstraintError(
            f"{name} is {parameter.dtype}; a weight cannot stay orthogonal in half precision. Keep it in float32 or "
            "float64 and use mixed precision (precision='bf16-mixed' or '16-mixed') instead"
        )
    if is_vector(parameter):
        raise ConstraintError(
            f"{name} has shape {tuple(parameter.shape)}; only parameters of 2 or more dimensions are matrices"
        )
    _check_chunks(name, parameter, constraint)
    try:
        whole = matrices_of(parameter, flatten=constraint.flatten).whole()
    except ConstraintError as error:
        raise ConstraintError(f"{name} is a DTensor that cannot be kept orthogonal: {error}") from None
    if whole is None and len(constraint.stacks) > 1:
        raise ConstraintError(
            f"{name} is sharded, and its chunks {constraint.chunks} are not of one shape, which needs the whole weight "
            "on each process: use chunks of one shape, or a parameter for each shape"
        )
    if 0 in parameter.shape:
        raise ConstraintError(f"{name} has shape {tuple(parameter.shape)}, which has no entries")


def _check_chunks(name: str, parameter: Tensor, constraint: Constraint) -> None:
    rows, chunks = parameter.shape[0], constraint.chunks
    if isinstance(chunks, tuple) and sum(chunks) != rows:
        raise ConstraintError(f"{name} has {rows} rows, and its chunks {list(chunks)} have {sum(chunks)}")
    if isinstance(chunks, int) and rows % chunks:
        raise ConstraintError(f"{name} has {rows} rows, which cannot be divided into {chunks} equal chunks")
    if chunks != 1 and parameter.ndim > 2 and not constraint.flatten:
        raise ConstraintError(f"{name} has shape {tuple(parameter.shape)}; only a 2-dimensional weight can have chunks")


def check_finite(name: str, parameter: Tensor, stack: Stack) -> None:
    """Check that matrices of a parameter hold no NaN and no infinity. If it is sharded, all processes must call this.

    Raises:
        ConstraintError: if it holds one.
    """
    if not stack.matrices(parameter).all_finite():
        raise ConstraintError(f"{name} holds values that are not finite; initialise it before it is constrained")


def refuse_flat(module: nn.Module) -> None:
    """Check that no parameter of a module is a part of a flat parameter, as under FSDP1 and ZeRO-3.

    Raises:
        ConstraintError: if one is. The message names it.
    """
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "_fsdp_flattened") or hasattr(parameter, "ds_id"):  # by FSDP1; by DeepSpeed
            raise ConstraintError(f"{name} is a part of a flat parameter and no longer a matrix. {FLAT_REMEDY}")


def unitarity_errors(
    module: nn.Module, constraints: dict[str, Constraint], *, quick: bool = False
) -> dict[str, Tensor]:
    """The unitarity error of each constrained parameter of a module (the largest of its matrices), by name.

    Args:
        module: the module that has the parameters. If they are sharded, every process must call this function.
        constraints: the constraint of each parameter, by its full name.
        quick: whether to estimate the error of matrices above 512 x 512. The relative error of the estimate is about
            ``min(n, p)^(-1/2)``.
    """
    reshard(module)
    errors = {}
    for name, constraint in constraints.items():
        parameter = module.get_parameter(name)
        stacks = [unitarity_error_of(stack, name, parameter, quick=quick) for stack in constraint.stacks]
        errors[name] = torch.stack(stacks).max()
    return errors


@torch.no_grad()
@full_precision()
def unitarity_error_of(stack: Stack, name: str, parameter: Tensor, *, quick: bool = False) -> Tensor:
    """The largest unitarity error of the matrices in one stack of a parameter. See :func:`unitarity_errors`."""
    matrices = stack.matrices(parameter)
    if quick and min(matrices.shape[-2:]) > _LARGE:
        generator = generator_for(f"unitarity error/{stack.label(name)}", matrices.device)
        return matrices.estimate_unitarity_error(generator).max()
    return matrices.unitarity_error().max()
