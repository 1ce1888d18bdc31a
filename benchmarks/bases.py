"""``python -m benchmarks.bases``: how the basis C of the tangent sampler should be chosen.

The sampler takes a random sketch of the present Omega. The alternatives are registered here as samplers of their own,
and :mod:`benchmarks.study`, whose arguments this command takes, runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import runner, study
from projunn_lightning.functional import SAMPLERS, Direction, Sampler, Update
from projunn_lightning.functional.sampling.base import gaussian
from projunn_lightning.linalg import Generators, orthonormalise

TANGENT = SAMPLERS["tangent"]


def _last(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, Tensor]:
    """The next C is a random sketch of the present Omega. One product could make both, Omega [C, G]."""
    sketch = orthonormalise(update.omega(gaussian(update.d, update.rows, rank, generator)))
    return TANGENT.sample(update, rank, generator, basis)[0], sketch


def _power(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, Tensor]:
    """The next C is an orthonormal basis of Omega C, so that successive steps are a power iteration."""
    assert basis is not None
    return TANGENT.sample(update, rank, generator, basis)[0], orthonormalise(update.omega(basis))


def _column(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, Tensor]:
    """C is the basis of the power iteration, whose last column is replaced by a random one."""
    assert basis is not None
    random = gaussian(update.d, update.rows, 1, generator)
    return _power(update, rank, generator, orthonormalise(torch.cat([basis[..., :-1], random], dim=-1)))


def _random(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, None]:
    """C is random in each step."""
    c = orthonormalise(gaussian(update.d, update.rows, rank, generator))
    return TANGENT.sample(update, rank, generator, c)[0], None


def _kept(sample: Callable[[Update, int, Generators, Tensor | None], tuple[Direction, Tensor]]) -> Sampler:
    """A sampler whose basis the Projector keeps from step to step, from a random one on."""
    return Sampler("", sample, basis_rows=lambda update: update.rows, of_tangent=True)


BASES = {
    "present sketch": TANGENT,
    "last sketch": _kept(_last),
    "power": _kept(_power),
    "power and a random column": _kept(_column),
    "random": Sampler("", _random, of_tangent=True),
}


CONTESTANTS = {
    f"{coordinates}, {rank}, {feedback}: {name}": runner.Contestant(
        {"sampler": f"tangent, {name}", "coordinates": coordinates, "rank": rank, "feedback": feedback}
    )
    for coordinates in ("weight", "skew")
    for rank in (1, 8)
    for feedback in (0.0, 0.9)
    for name in BASES
    if (name, rank) != ("power and a random column", 1)
}
"""The alternatives, in the place of the study's contestants."""


def main(problems: dict[str, runner.Problem]) -> None:
    """Register the alternatives, and run them on the problems of the study."""
    SAMPLERS.update({f"tangent, {name}": sampler for name, sampler in BASES.items()})
    compared = {name: replace(problem, contestants=CONTESTANTS) for name, problem in problems.items()}
    runner.main(compared, "benchmarks.bases", __doc__)


if __name__ == "__main__":
    main(study.PROBLEMS)
