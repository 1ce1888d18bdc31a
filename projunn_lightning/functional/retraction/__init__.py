"""The ways back to the manifold: a new one is a file here and an entry of :data:`RETRACTIONS`."""

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
    """Move unitary matrices along an update ``a b^H`` and back to the manifold, by the retraction of that name.

    Args:
        weight: unitary matrices W, ``(*, n, p)``; real or complex, float32 or float64.
        a: left factor of the update, ``(*, n, k)``, in the weight's dtype.
        b: right factor, ``(*, p, k)``.
        retraction: a name in :data:`RETRACTIONS`.

    Returns:
        The new weight ``(*, n, p)``.

    Raises:
        ProjUNNError: if the shapes do not fit, or there is no retraction of that name.

    >>> import torch
    >>> weight, a, b = torch.eye(2), torch.zeros(2, 1), torch.ones(2, 1)
    >>> bool((retract(weight, a, b, "polar") == weight).all())  # a zero update changes nothing
    True
    """
    one_of("retraction", retraction, RETRACTIONS)
    return RETRACTIONS[retraction](weight, a, b)
