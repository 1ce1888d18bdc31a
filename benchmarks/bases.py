"""``python -m benchmarks.bases``: how the basis C of the tangent sampler should be chosen.

The sampler takes a random sketch of the last Omega. The alternatives are registered here as samplers of their own, and
:mod:`benchmarks.study`, whose arguments this command takes, runs them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks import runner, study
from projunn_lightning.functional import SAMPLERS, Direction, Sampler, Update
from projunn_lightning.functional.sampling.base import gaussian
from projunn_lightning.linalg import Generators, orthonormalise

TANGENT = SAMPLERS["tangent"]


def _power(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, Tensor | None]:
    """The next C is an orthonormal basis of Omega C, so that successive steps are a power iteration."""
    direction, following = TANGENT.sample(update, rank, generator, basis)
    return direction, following if basis is None else orthonormalise(update.omega(basis))


def _column(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, Tensor | None]:
    """C is the basis of the power iteration, whose last column is replaced by a random one."""
    if basis is not None:
        basis = orthonormalise(torch.cat([basis[..., :-1], gaussian(update.d, update.rows, 1, generator)], dim=-1))
    return _power(update, rank, generator, basis)


def _random(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, None]:
    """C is random in each step."""
    c = orthonormalise(gaussian(update.d, update.rows, rank, generator))
    return TANGENT.sample(update, rank, generator, c)[0], None


def _now(update: Update, rank: int, generator: Generators, basis: Tensor | None) -> tuple[Direction, None]:
    """C is a random sketch of the present Omega, at the cost of four further thin products."""
    c = orthonormalise(update.omega(gaussian(update.d, update.rows, rank, generator)))
    return TANGENT.sample(update, rank, generator, c)[0], None


BASES = {
    "last sketch": TANGENT,
    "present sketch": Sampler("", _now, of_tangent=True),
    "power": Sampler("", _power, basis_rows=TANGENT.basis_rows, of_tangent=True),
    "power and a random column": Sampler("", _column, basis_rows=TANGENT.basis_rows, of_tangent=True),
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
