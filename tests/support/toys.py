"""A sampler and a retraction that are not in the package. Tests register each of them by one entry."""

from contextlib import contextmanager

import pytest
import torch

from projunn_lightning.functional import RETRACTIONS, SAMPLERS, Retraction, Sampler
from projunn_lightning.functional.sampling.base import LowRank, gaussian
from projunn_lightning.linalg import identity, orthonormalise
from tests.support.oracles import ORACLES


def twice_half(s):
    """Two Cayley transforms by half of the angle: ``(I + C)^2 - I = 2 C + C^2``."""
    c = torch.linalg.solve(identity(s) - 0.25 * s, 0.5 * s)
    return 2 * c + c @ c


def twice_half_dense(weight, update):
    if weight.shape[-2] < weight.shape[-1]:
        return twice_half_dense(weight.mH, update.mH).mH
    x = update @ weight.mH
    quarter = (x - x.mH) / 8
    c = torch.linalg.solve(identity(x) - quarter, identity(x) + quarter)
    return c @ c @ weight


def by_two_products(update, rank, generator, basis):
    """A sketch of the rows, improved by one more power step."""
    d = update.d
    sketch = orthonormalise(d.matmul(orthonormalise(gaussian(d, d.shape[-1], rank, generator))))
    b = orthonormalise(d.mH.matmul(sketch))
    return LowRank(d.matmul(b), b), None


@contextmanager
def registered():
    """Register a retraction and a sampler, both named ``"toy"``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            RETRACTIONS,
            "toy",
            Retraction("two half Cayley transforms", twice_half, lambda w, omega, d: w + twice_half(omega) @ w),
        )
        patch.setitem(ORACLES, "toy", twice_half_dense)
        patch.setitem(SAMPLERS, "toy", Sampler("a sketch of the rows after a power step", by_two_products))
        yield
