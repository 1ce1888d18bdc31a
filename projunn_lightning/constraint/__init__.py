"""Which parameters are constrained, and how each is viewed as matrices."""

from projunn_lightning.constraint.convert import from_parametrized
from projunn_lightning.constraint.declare import (
    Constraint,
    Init,
    check,
    check_finite,
    declared,
    initialise_,
    matching,
    orthogonal,
    refuse_flat,
    unitarity_errors,
)

__all__ = [
    "Constraint",
    "Init",
    "check",
    "check_finite",
    "declared",
    "from_parametrized",
    "initialise_",
    "matching",
    "orthogonal",
    "refuse_flat",
    "unitarity_errors",
]
