"""Which parameters are constrained, and how each is viewed as a batch of matrices.

The record of a constraint is kept by name on the module that owns the parameter. The parameter itself stays a plain
``nn.Parameter``: the record survives ``deepcopy``, pickling and a strategy that replaces the parameter object.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from projunn_lightning.errors import ConstraintError
from projunn_lightning.functional import init as inits
from projunn_lightning.functional.unitarity import (
    estimate_unitarity_error,
    nearest_unitary,
    nearest_unitary_,
    unitarity_error,
)
from projunn_lightning.linalg import generator_for
from projunn_lightning.linalg.sharded import Matrices, Sharded, is_sharded, reshard

Init = Literal["polar", "haar", "identity", "henaff", "cayley"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)

FLAT_REMEDY = (
    "FSDP1 and DeepSpeed flatten parameters; shard by FSDP2 instead: strategy=ModelParallelStrategy(), with "
    "torch.distributed.fsdp.fully_shard in the LightningModule's configure_model"
)
SINGULAR = "a sharded weight is singular, or nearly, and its nearest unitary matrix is not to be had on shards"
_RECORD = "_orthogonal_parameters"
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
# The stacked weights of torch's own modules: (module, parameter, number of matrices along dim 0).
_STACKED: tuple[tuple[type[nn.Module], str, int], ...] = (
    (nn.LSTM, "weight_[ih]h_l*", 4),
    (nn.LSTMCell, "weight_[ih]h", 4),
    (nn.GRU, "weight_[ih]h_l*", 3),
    (nn.GRUCell, "weight_[ih]h", 3),
    (nn.MultiheadAttention, "in_proj_weight", 3),
)


@dataclass(frozen=True)
class Constraint:
    """How a parameter is viewed as matrices.

    Attributes:
        chunks: the number of matrices stacked along dim 0.
        flatten: whether all dims but the first form one (a convolution kernel becomes ``(out, rest)``).
    """

    chunks: int = 1
    flatten: bool = False

    def matrices(self, tensor: Tensor) -> Matrices:
        """The tensor as matrices ``(*, n, p)``: a view where its memory layout allows one, otherwise a copy.

        Of a sharded tensor, what stands for its matrices on this rank; always a view.
        """
        if is_sharded(tensor):
            return Sharded.of(tensor, self.chunks, self.flatten)
        if self.flatten:
            tensor = tensor.flatten(1)
        return tensor if self.chunks == 1 else tensor.reshape(self.chunks, -1, tensor.shape[-1])


def orthogonal(module: ModuleT, name: str = "weight", *, init: Init = "polar", chunks: int = 1) -> ModuleT:
    """Declare a parameter of any module orthogonal (real) or unitary (complex), and initialise it so.

    :class:`~projunn_lightning.ProjUNN` or :class:`~projunn_lightning.Projector` then keep it so while training. The
    parameter stays a plain ``nn.Parameter`` under its own name. A weight of more than two dimensions is a batch of
    matrices; a convolution's kernel is one matrix ``(out, rest)``. A rectangular matrix gets orthonormal columns
    (tall) or rows (wide).

    Args:
        module: the module that owns the parameter.
        name: the parameter's name on it.
        init: ``"polar"``, the nearest unitary matrix to the present values; or ``"haar"``, ``"identity"``,
            ``"henaff"``, ``"cayley"``, see :mod:`projunn_lightning.functional.init`.
        chunks: the number of matrices stacked along dim 0 (``nn.LSTM.weight_hh_l0``: 4, attention's
            ``in_proj_weight``: 3).

    Returns:
        The module itself.

    Raises:
        ConstraintError: if the module has no such parameter, or it is not a float32 or float64 (or complex) matrix,
            or ``chunks`` does not divide it, or ``"polar"`` finds values that are not finite. The weight is unchanged.

    >>> layer = orthogonal(nn.Linear(3, 3), init="identity")
    >>> layer.weight.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if init not in get_args(Init):
        raise ConstraintError(f"unknown init {init!r}, expected one of {', '.join(get_args(Init))}")
    parameter = module._parameters.get(name)
    if parameter is None:
        own = ", ".join(n for n, p in module._parameters.items() if p is not None and p.ndim >= 2) or "none"
        raise ConstraintError(f"{type(module).__name__} has no parameter {name!r}; its matrices: {own}")
    constraint = Constraint(chunks, flatten=isinstance(module, nn.modules.conv._ConvNd))
    check(f"{type(module).__name__}.{name}", parameter, constraint)
    if init == "polar":
        check_finite(f"{type(module).__name__}.{name}", parameter)
    initialise_(parameter, constraint, init)
    module.__dict__.setdefault(_RECORD, {})[name] = constraint
    return module


def declared(module: nn.Module) -> dict[str, Constraint]:
    """The constraints declared on a module and its children, by the parameter's full name."""
    return {
        f"{prefix}.{name}" if prefix else name: constraint
        for prefix, child in module.named_modules()
        for name, constraint in getattr(child, _RECORD, {}).items()
    }


def matching(module: nn.Module, patterns: Iterable[str]) -> dict[str, Constraint]:
    """The constraints that glob patterns choose among ``module.named_parameters()``, by name.

    The stacked weights of ``nn.LSTM``, ``nn.GRU`` and ``nn.MultiheadAttention`` are taken as one matrix a gate or
    projection; a declaration by :func:`orthogonal` goes before.

    Raises:
        ConstraintError: if a pattern matches no parameter (with near misses), or one that is no matrix.
    """
    names = dict(module.named_parameters(remove_duplicate=False))
    known = declared(module)
    found: dict[str, Constraint] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            matrices = [name for name, parameter in names.items() if parameter.ndim >= 2]
            near = difflib.get_close_matches(pattern, matrices, n=3, cutoff=0.4) or matrices[:10]
            raise ConstraintError(
                f"the pattern {pattern!r} matches no parameter of {type(module).__name__}; "
                f"near misses: {', '.join(near) or 'none, it has no matrices'}"
            )
        for name in matches:
            found[name] = known.get(name) or _constraint_of(module, name)
            check(name, names[name], found[name])
    return found


@torch.no_grad()
def unitarity_errors(
    module: nn.Module, constraints: dict[str, Constraint], *, quick: bool = False
) -> dict[str, Tensor]:
    """The unitarity error of each constrained parameter of a module (the largest of its matrices), by name.

    With ``quick`` that of matrices above 512 x 512 is estimated, to a relative ``min(n, p)^(-1/2)`` or so: to work
    it out takes as long as many steps.
    """
    reshard(module)
    errors = {}
    for name, constraint in constraints.items():
        matrices = constraint.matrices(module.get_parameter(name))
        if quick and min(matrices.shape[-2:]) > 512:
            generator = generator_for(f"unitarity error/{name}", matrices.device)
            errors[name] = estimate_unitarity_error(matrices, generator=generator).max()
        else:
            errors[name] = unitarity_error(matrices).max()
    return errors


def _constraint_of(module: nn.Module, name: str) -> Constraint:
    prefix, _, leaf = name.rpartition(".")
    owner = module.get_submodule(prefix)
    chunks = next((c for kind, glob, c in _STACKED if isinstance(owner, kind) and fnmatchcase(leaf, glob)), 1)
    return Constraint(chunks, flatten=isinstance(owner, nn.modules.conv._ConvNd))


def check(name: str, parameter: Tensor, constraint: Constraint) -> None:
    """Raise a :class:`ConstraintError` if the parameter cannot be viewed as matrices of a full-precision dtype."""
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ConstraintError(f"{name} is not materialised yet; run a batch through the lazy module first")
    if parameter.is_meta:
        raise ConstraintError(f"{name} is on the meta device and has no values yet; declare it once it is materialised")
    if parameter.dtype not in _DTYPES:
        raise ConstraintError(
            f"{name} is {parameter.dtype}; a weight cannot stay orthogonal in half precision. Keep it in float32 or "
            "float64 and use mixed precision (precision='bf16-mixed' or '16-mixed') instead"
        )
    if parameter.ndim < 2:
        raise ConstraintError(
            f"{name} has shape {tuple(parameter.shape)}; only parameters of 2 or more dimensions are matrices. "
            "Narrow the pattern, for example to '*.weight*'"
        )
    if constraint.chunks < 1 or parameter.shape[0] % constraint.chunks:
        raise ConstraintError(f"{name}: {parameter.shape[0]} rows do not divide into {constraint.chunks} chunks")
    if constraint.chunks > 1 and parameter.ndim > 2 and not constraint.flatten:
        raise ConstraintError(f"{name} has shape {tuple(parameter.shape)}; only a 2-dimensional weight has chunks")
    if is_sharded(parameter):
        _check_placements(name, parameter, constraint)
    if 0 in parameter.shape:
        raise ConstraintError(f"{name} has shape {tuple(parameter.shape)}, which holds no numbers")


def _check_placements(name: str, parameter: Tensor, constraint: Constraint) -> None:
    try:
        constraint.matrices(parameter)
    except ValueError as error:
        raise ConstraintError(f"{name} is a DTensor that cannot be kept orthogonal: {error}") from None


def refuse_flat(module: nn.Module) -> None:
    """Raise a :class:`ConstraintError` if a parameter of the module is part of a flat one, as by FSDP1 or ZeRO-3."""
    for name, parameter in module.named_parameters():
        if hasattr(parameter, "_fsdp_flattened") or hasattr(parameter, "ds_id"):  # set by FSDP1; by DeepSpeed
            raise ConstraintError(f"{name} is part of a flat parameter and no matrix any more. {FLAT_REMEDY}")


def check_finite(name: str, parameter: Tensor) -> None:
    """Raise a :class:`ConstraintError` if the parameter holds a NaN or an infinity, on any rank."""
    matrices = Constraint().matrices(parameter)
    local = matrices.local if isinstance(matrices, Sharded) else parameter
    bad = (~torch.isfinite(local)).any().float()
    if matrices.summed(bad) if isinstance(matrices, Sharded) else bad:
        raise ConstraintError(f"{name} holds values that are not finite; initialise it before it is constrained")


@torch.no_grad()
def initialise_(parameter: Tensor, constraint: Constraint, init: Init) -> None:
    """Fill the parameter's matrices in place.

    Raises:
        ConstraintError: if the parameter is sharded and is to be anything but the nearest unitary matrix, or has none.
    """
    matrices = constraint.matrices(parameter)
    if isinstance(matrices, Sharded):
        _initialise_sharded_(matrices, constraint.matrices(torch.empty_like(parameter)), init)
        return
    matrices = nearest_unitary(matrices) if init == "polar" else getattr(inits, f"{init}_")(matrices.clone())
    parameter.copy_(matrices.reshape(parameter.shape))


def _initialise_sharded_(matrices: Sharded, scratch: Matrices, init: Init) -> None:
    assert isinstance(scratch, Sharded)
    before = "declare it with projunn_lightning.orthogonal before fully_shard or parallelize_module"
    if init != "polar":
        raise ConstraintError(f"init {init!r} needs the whole weight, which is sharded already: {before}")
    if not nearest_unitary_(matrices, scratch):
        raise ConstraintError(SINGULAR)
