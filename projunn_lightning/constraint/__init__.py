"""Which parameters are constrained, and how each is viewed as matrices."""

from projunn_lightning.constraint.check import (
    FLAT_REMEDY,
    check,
    check_finite,
    refuse_flat,
    unitarity_error_of,
    unitarity_errors,
)
from projunn_lightning.constraint.convert import from_parametrized
from projunn_lightning.constraint.declare import Init, initialise_, orthogonal
from projunn_lightning.constraint.known import as_chunks, constraint_on
from projunn_lightning.constraint.record import Chunks, Constraint, Stack, declared, remember
from projunn_lightning.constraint.select import left_out, matching, select

__all__ = [
    "FLAT_REMEDY",
    "Chunks",
    "Constraint",
    "Init",
    "Stack",
    "as_chunks",
    "check",
    "check_finite",
    "constraint_on",
    "declared",
    "from_parametrized",
    "initialise_",
    "left_out",
    "matching",
    "orthogonal",
    "refuse_flat",
    "remember",
    "select",
    "unitarity_error_of",
    "unitarity_errors",
]
