"""The conversion of orthogonal weights of torch, geotorch and geoopt to plain constrained parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from projunn_lightning._compat import is_compiled, plain_name
from projunn_lightning.constraint.check import check
from projunn_lightning.constraint.declare import ModuleT, orthogonal
from projunn_lightning.constraint.known import constraint_on
from projunn_lightning.constraint.record import Constraint
from projunn_lightning.errors import ConstraintError
from projunn_lightning.linalg import full_precision

# The classes are compared by name, because geotorch and geoopt need not be installed. Subclasses are included:
# geotorch's Stiefel is a subclass of SO.
_ORTHOGONAL = {
    "torch.nn.utils.parametrizations._Orthogonal",
    "geotorch.so.SO",
    "geoopt.manifolds.stiefel.Stiefel",
}
_CHUNKS = 1  # all of these libraries view the stacked weights of an LSTM, for example, as one matrix
_TOLERANCE = 1e-4  # the rounding error of a large matrix_exp in float32; geotorch uses the same


@full_precision()
def from_parametrized(module: ModuleT) -> ModuleT:
    """Replace weights that other libraries keep orthogonal by plain constrained parameters with the same values.

    The function converts weights under ``torch.nn.utils.parametrizations.orthogonal``, under ``geotorch.orthogonal`` or
    ``geotorch.grassmannian``, and each ``geoopt.ManifoldParameter`` on a ``geoopt.Stiefel``, of the module and all its
    children. Each weight becomes a plain ``nn.Parameter`` under its own name, declared by
    :func:`~projunn_lightning.orthogonal`. The module is changed in place. The values (to rounding), the device, the
    dtype and ``requires_grad`` stay the same. Other parametrizations, such as ``weight_norm``, stay untouched.
    ``torch.compile`` may have compiled the module or its children.

    A stacked weight, such as ``nn.LSTM.weight_hh_l0``, is one matrix for those libraries and stays one matrix.

    Create a new optimizer afterwards, because the momentum and the averages of a parametrized weight belong to other
    coordinates.

    Args:
        module: the module to convert.

    Returns:
        The module itself.

    Raises:
        ConstraintError: if there is no such weight, or if a weight has further parametrizations, is a buffer, or is not
            orthogonal (a convolution's kernel as one matrix ``(out, rest)``). The module is unchanged then.

    >>> from torch.nn.utils import parametrizations
    >>> layer = parametrizations.orthogonal(nn.Linear(3, 3))
    >>> weight = layer.weight
    >>> layer = from_parametrized(layer)
    >>> type(layer.weight).__name__, torch.allclose(layer.weight, weight, atol=1e-6)
    ('Parameter', True)
    """
    computed = list(_computed(module))
    on_manifolds = list(_on_manifolds(module))
    if not computed and not on_manifolds:
        raise ConstraintError(
            f"{type(module).__name__} has no orthogonal weight of torch's parametrizations, geotorch or geoopt; "
            f"found: {', '.join(_other_parametrizations(module)) or 'no parametrization'}. Declare plain weights by "
            "projunn_lightning.orthogonal(module, name)"
        )
    for owner, name, value in computed:
        _remove_parametrization(owner, name, value)
        orthogonal(owner, name, chunks=_CHUNKS)
    plain: dict[int, nn.Parameter] = {}  # by the old parameter, so that tied parameters stay tied
    for owner, name, old in on_manifolds:
        new = plain.setdefault(id(old), nn.Parameter(old.detach().as_subclass(Tensor).clone(), old.requires_grad))
        setattr(owner, name, new)
        orthogonal(owner, name, chunks=_CHUNKS)
    return module


@torch.no_grad()
def _computed(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield the owner, the name and the value of each weight under an orthogonal parametrization, after a check."""
    for full, owner, name, steps in _parametrizations(module):
        if not any(map(_is_orthogonal, steps)):
            continue
        if len(steps) > 1:
            kinds = ", ".join(type(step).__name__ for step in steps)
            raise ConstraintError(
                f"{full} has several parametrizations ({kinds}), expected only an orthogonal one: remove the "
                "others, or remove all by torch.nn.utils.parametrize.remove_parametrizations"
            )
        if not isinstance(steps.original, nn.Parameter):
            raise ConstraintError(f"{full} is a parametrized buffer, expected a parameter: buffers are not trained")
        constraint = constraint_on(owner, name, _CHUNKS)
        check(full, steps.original, constraint)  # the value cannot even be computed in half precision
        value: Tensor = getattr(owner, name)
        _check_orthogonal(full, value, constraint)
        yield owner, name, value


@torch.no_grad()
def _on_manifolds(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield the owner, the name and the object of each geoopt parameter on a Stiefel manifold, after a check."""
    for prefix, owner in module.named_modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None and _is_orthogonal(getattr(parameter, "manifold", None)):
                full = plain_name(f"{prefix}.{name}" if prefix else name)
                constraint = constraint_on(owner, name, _CHUNKS)
                check(full, parameter, constraint)
                _check_orthogonal(full, parameter.as_subclass(Tensor), constraint)
                yield owner, name, parameter


def _parametrizations(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, parametrize.ParametrizationList]]:
    for prefix, owner in module.named_modules():
        # A wrapper of torch.compile has the attributes of the module inside of it, which is visited on its own.
        if not is_compiled(owner) and parametrize.is_parametrized(owner):
            for name, steps in owner.parametrizations.items():
                yield plain_name(f"{prefix}.{name}" if prefix else name), owner, name, steps


def _other_parametrizations(module: nn.Module) -> list[str]:
    return [f"{type(step).__name__} on {full}" for full, _, _, steps in _parametrizations(module) for step in steps]


def _is_orthogonal(kind: object) -> bool:
    return not _ORTHOGONAL.isdisjoint(f"{base.__module__}.{base.__name__}" for base in type(kind).__mro__)


def _check_orthogonal(name: str, weight: Tensor, constraint: Constraint) -> None:
    error = max(float(stack.matrices(weight).unitarity_error().max()) for stack in constraint.stacks)
    if not error < _TOLERANCE:  # so that NaN is refused too
        hint = "; the kernel of a convolution is viewed as one matrix (out, rest)" if constraint.flatten else ""
        raise ConstraintError(
            f"{name} has unitarity error {error:.1e}, expected below {_TOLERANCE:.0e}{hint}. To start from the nearest "
            "orthogonal matrix, make it a plain parameter and declare it by projunn_lightning.orthogonal"
        )


@torch.no_grad()
def _remove_parametrization(owner: nn.Module, name: str, value: Tensor) -> None:
    # torch makes the weight a property of a class that it creates for the module. Copies of the module (such as the
    # layers of an nn.TransformerEncoder) share this class, and torch would remove the property from all of them.
    # Therefore this module gets its own class.
    shared = type(owner)
    owner.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
    weight = owner.get_parameter(name)
    weight.data = value.contiguous()  # leave_parametrized=True would leave odd strides or a larger storage
    weight.grad = None  # it belongs to the coordinates of the parametrization
