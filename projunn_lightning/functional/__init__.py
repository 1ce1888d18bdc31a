"""Pure functions on tensors: the low-rank update, the retractions, unitarity, initialisation, the recurrence."""

from projunn_lightning.functional import init, simple
from projunn_lightning.functional.circular_padding import circular_pad, circular_unpad
from projunn_lightning.functional.convolution import (
    assemble_spectrum,
    circular_convolution,
    frequency_counts,
)
from projunn_lightning.functional.init import INITS, InitName
from projunn_lightning.functional.modrelu import modrelu
from projunn_lightning.functional.orthogonal_kernel import orthogonal_kernel
from projunn_lightning.functional.recurrence import Nonlinearity, recurrence
from projunn_lightning.functional.retraction import (
    RETRACTIONS,
    Change,
    Retraction,
    RetractionName,
    cayley,
    projunn_d,
    projunn_t,
    retract,
)
from projunn_lightning.functional.sampling import (
    SAMPLERS,
    Direction,
    Sampler,
    SamplerName,
    Update,
    rank_k,
    rotate,
    sample_tangent,
)
from projunn_lightning.functional.unitarity import estimate_unitarity_error, unitarity_error
from projunn_lightning.linalg import nearest_unitary, newton_schulz

__all__ = [
    "INITS",
    "RETRACTIONS",
    "SAMPLERS",
    "Change",
    "Direction",
    "InitName",
    "Nonlinearity",
    "Retraction",
    "RetractionName",
    "Sampler",
    "SamplerName",
    "Update",
    "assemble_spectrum",
    "cayley",
    "circular_convolution",
    "circular_pad",
    "circular_unpad",
    "estimate_unitarity_error",
    "frequency_counts",
    "init",
    "modrelu",
    "nearest_unitary",
    "newton_schulz",
    "orthogonal_kernel",
    "projunn_d",
    "projunn_t",
    "rank_k",
    "recurrence",
    "retract",
    "rotate",
    "sample_tangent",
    "simple",
    "unitarity_error",
]
