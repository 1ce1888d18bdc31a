"""From torch's, geotorch's and geoopt's orthogonal weights to plain constrained parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from projunn_lightning.constraint.check import check
from projunn_lightning.constraint.declare import ModuleT, orthogonal
from projunn_lightning.constraint.record import Constraint
from projunn_lightning.errors import ConstraintError
from projunn_lightning.linalg import full_precision

# By name, as geotorch and geoopt need not be installed. Subclasses count: geotorch's Stiefel is an SO.
_ORTHOGONAL = {
    "torch.nn.utils.parametrizations._Orthogonal",
    "geotorch.so.SO",
    "geoopt.manifolds.stiefel.Stiefel",
}
_TOLERANCE = 1e-4  # what rounding leaves of a large matrix_exp in float32; geotorch's own


@full_precision()
def from_parametrized(module: ModuleT) -> ModuleT:
    """Make plain constrained parameters of weights that other libraries keep orthogonal, with the same values.

    Taken are weights under ``torch.nn.utils.parametrizations.orthogonal``, under ``geotorch.orthogonal`` or
    ``geotorch.grassmannian``, and ``geoopt.ManifoldParameter`` on a ``geoopt.Stiefel``, of the module and all its
    children. Each becomes a plain ``nn.Parameter`` under its own name, declared by
    :func:`~projunn_lightning.orthogonal`; the module is changed in place. Values (to rounding), device, dtype and
    ``requires_grad`` stay. Other parametrizations, such as ``weight_norm``, stay untouched.

    Make the optimizer anew afterwards: momentum and averages of a parametrized weight are in other coordinates.

    Returns:
        The module itself.

    Raises:
        ConstraintError: if there is no such weight, or one has further parametrizations, is a buffer, or is not
            orthogonal (as one ``(out, rest)`` matrix of a convolution). The module is unchanged then.

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
        orthogonal(owner, name)
    plain: dict[int, nn.Parameter] = {}  # what was tied stays tied
    for owner, name, old in on_manifolds:
        new = plain.setdefault(id(old), nn.Parameter(old.detach().as_subclass(Tensor).clone(), old.requires_grad))
        setattr(owner, name, new)
        orthogonal(owner, name)
    return module


@torch.no_grad()
def _computed(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Owner, name and value of each weight under an orthogonal parametrization, checked."""
    for full, owner, name, steps in _parametrizations(module):
        if not any(map(_is_orthogonal, steps)):
            continue
        if len(steps) > 1:
            kinds = ", ".join(type(step).__name__ for step in steps)
            raise ConstraintError(
                f"{full} has several parametrizations ({kinds}), expected an orthogonal one alone: leave the others "
                "out, or remove all by torch.nn.utils.parametrize.remove_parametrizations"
            )
        if not isinstance(steps.original, nn.Parameter):
            raise ConstraintError(f"{full} is a parametrized buffer, expected a parameter: only those are trained")
        check(full, steps.original, _constraint_on(owner))  # half precision could not even be computed
        value: Tensor = getattr(owner, name)
        _check_orthogonal(full, value, _constraint_on(owner))
        yield owner, name, value


@torch.no_grad()
def _on_manifolds(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Owner, name and present object of each of geoopt's parameters on a Stiefel manifold, checked."""
    for prefix, owner in module.named_modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None and _is_orthogonal(getattr(parameter, "manifold", None)):
                full = f"{prefix}.{name}" if prefix else name
                check(full, parameter, _constraint_on(owner))
                _check_orthogonal(full, parameter.as_subclass(Tensor), _constraint_on(owner))
                yield owner, name, parameter


def _parametrizations(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, parametrize.ParametrizationList]]:
    for prefix, owner in module.named_modules():
        if parametrize.is_parametrized(owner):
            for name, steps in owner.parametrizations.items():
                yield f"{prefix}.{name}" if prefix else name, owner, name, steps


def _other_parametrizations(module: nn.Module) -> list[str]:
    return [f"{type(step).__name__} on {full}" for full, _, _, steps in _parametrizations(module) for step in steps]


def _is_orthogonal(kind: object) -> bool:
    return not _ORTHOGONAL.isdisjoint(f"{base.__module__}.{base.__name__}" for base in type(kind).__mro__)


def _constraint_on(owner: nn.Module) -> Constraint:
    return Constraint(flatten=isinstance(owner, nn.modules.conv._ConvNd))


def _check_orthogonal(name: str, weight: Tensor, constraint: Constraint) -> None:
    error = float(constraint.matrices(weight).unitarity_error().max())
    if not error < _TOLERANCE:  # nor is NaN
        hint = "; the kernel of a convolution is taken as one matrix (out, rest)" if constraint.flatten else ""
        raise ConstraintError(
            f"{name} has unitarity error {error:.1e}, expected below {_TOLERANCE:.0e}{hint}. To start from the nearest "
            "orthogonal matrix, make it a plain parameter and declare it by projunn_lightning.orthogonal"
        )


@torch.no_grad()
def _remove_parametrization(owner: nn.Module, name: str, value: Tensor) -> None:
    # torch keeps the weight as a property of a class made for the module, which copies of it share (such as the layers
    # of an nn.TransformerEncoder) and which it would take from all of them: so this one gets a class of its own.
    shared = type(owner)
    owner.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
    weight = owner.get_parameter(name)
    weight.data = value.contiguous()  # not leave_parametrized=True, which leaves odd strides or a larger storage
    weight.grad = None  # in the former coordinates
