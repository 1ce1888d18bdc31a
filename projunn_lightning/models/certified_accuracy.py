"""The share of the inputs whose right class cannot be changed by a small perturbation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from projunn_lightning.errors import non_negative

EPSILON_36 = 36 / 255
"""The radius at which the literature reports certified accuracy on CIFAR-10, for pixels from 0 to 1."""


class CertifiedAccuracy(Metric):
    r"""The share of the inputs that a 1-Lipschitz network classifies right at every point within a radius.

    If a network changes by at most ``|x - y|`` between two inputs x and y, then the difference of two of its outputs
    changes by at most :math:`\sqrt 2 |x - y|`. A class that leads by a margin above :math:`\sqrt 2` times the radius
    therefore leads at every point of the ball around the input.

    Args:
        radius: the Euclidean radius of the ball, in the units of the network's input. For the usual 36/255 the input
            must be pixels from 0 to 1, possibly shifted, but not scaled.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        ProjUNNError: if the radius is negative.

    Source: Tsuzuku, Sato and Sugiyama 2018, arXiv 1802.04034.

    >>> metric = CertifiedAccuracy(radius=0.5)
    >>> metric(torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 0]))
    tensor(0.3333)
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    certified: Tensor
    total: Tensor

    def __init__(self, radius: float = EPSILON_36, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        non_negative(radius=radius)
        self.radius = radius
        self.add_state("certified", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count logits ``(B, C)`` and classes ``(B,)``."""
        right = preds.gather(1, target[:, None])
        others = preds.scatter(1, target[:, None], -torch.inf)
        margin = right[:, 0] - others.amax(dim=1)
        self.certified += (margin > 2**0.5 * self.radius).sum()
        self.total += target.numel()

    def compute(self) -> Tensor:
        """The share of the inputs that were counted as certified."""
        return self.certified.float() / self.total
