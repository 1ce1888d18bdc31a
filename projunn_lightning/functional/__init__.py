"""Pure functions on tensors: the low-rank update, the retractions, unitarity, initialisation, the recurrence."""

from projunn_lightning.functional import init
from projunn_lightning.functional.modrelu import modrelu
from projunn_lightning.functional.recurrence import recurrence
from projunn_lightning.functional.retraction import cayley, projunn_d, projunn_t
from projunn_lightning.functional.sampling import rank_k
from projunn_lightning.functional.unitarity import (
    estimate_unitarity_error,
    nearest_unitary,
    newton_schulz,
    unitarity_error,
)

__all__ = [
    "cayley",
    "estimate_unitarity_error",
    "init",
    "modrelu",
    "nearest_unitary",
    "newton_schulz",
    "projunn_d",
    "projunn_t",
    "rank_k",
    "recurrence",
    "unitarity_error",
]
