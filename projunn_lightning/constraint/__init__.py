"""Which parameters are constrained, and how each is viewed as matrices."""

from projunn_lightning.constraint.check import FLAT_REMEDY, check, check_finite, refuse_flat, unitarity_errors
from projunn_lightning.constraint.convert import from_parametrized
from projunn_lightning.constraint.declare import Init, initialise_, orthogonal
from projunn_lightning.constraint.record import Constraint, declared
from projunn_lightning.constraint.select import matching, plain_name, select

__all__ = [
    "FLAT_REMEDY",
    "Constraint",
    "Init",
    "check",
    "check_finite",
    "declared",
    "from_parametrized",
    "initialise_",
    "matching",
    "orthogonal",
    "plain_name",
    "refuse_flat",
    "select",
    "unitarity_errors",
]
