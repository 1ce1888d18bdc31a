"""The retractions. A new retraction is a file in this folder and an entry of :data:`RETRACTIONS`."""

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from projunn_lightning.errors import one_of
from projunn_lightning.functional.retraction.base import Change, Retraction, Rotation, skew_part
from projunn_lightning.functional.retraction.cayley import CAYLEY, cayley
from projunn_lightning.functional.retraction.exponential import EXPONENTIAL, projunn_t
from projunn_lightning.functional.retraction.polar import POLAR, projunn_d

__all__ = [
    "RETRACTIONS",
    "Change",
    "Retraction",
    "RetractionName",
    "Rotation",
    "cayley",
    "projunn_d",
    "projunn_t",
    "retract",
    "skew_part",
]

RETRACTIONS: dict[str, Retraction] = {
    "exponential": EXPONENTIAL,
    "polar": POLAR,
    "cayley": CAYLEY,
}
"""The retractions by name."""

if TYPE_CHECKING:
    RetractionName = str
else:
    RetractionName = Literal[tuple(RETRACTIONS)]  # the help of the command shows these choices


def retract(weight: Tensor, a: Tensor, b: Tensor, retraction: RetractionName = "exponential") -> Tensor:
    """Move unitary matrices along an update ``a b^H`` and back to the manifold, by a retraction that is named.

    Args:
        weight: unitary matrices W, ``(*, n, p)``, of dtype float32, float64, complex64 or complex128.
        a: the left factor of the update, ``(*, n, k)``, in the weight's dtype.
        b: the right factor of the update, ``(*, p, k)``, in the weight's dtype.
        retraction: a name in :data:`RETRACTIONS`.

    Returns:
        The new weight ``(*, n, p)``.

    Raises:
        ProjUNNError: if the shapes do not fit together, or if the retraction is unknown.

    >>> import torch
    >>> weight, a, b = torch.eye(2), torch.zeros(2, 1), torch.ones(2, 1)
    >>> bool((retract(weight, a, b, "polar") == weight).all())  # a zero update changes nothing
    True
    """
    one_of("retraction", retraction, RETRACTIONS)
    return RETRACTIONS[retraction](weight, a, b)
