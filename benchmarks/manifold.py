"""``python -m benchmarks.manifold``: races on problems whose optimum is known, against optimizers on the manifold.

Each method runs at every rate of one small grid. The table shows, for its best rate, the training steps and the seconds
until the relative gap to the optimum was below 1e-2, 1e-3 and 1e-4. Seconds are of training alone: the gap is computed
every ten steps while the clock stands still. Every method but geoopt's uses SGD with momentum 0.3, as in the example of
POGO; geoopt's Riemannian SGD has the same momentum.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import unitarity_error
from projunn_lightning.functional.init import haar_

GAPS = (1e-2, 1e-3, 1e-4)
RATES = (0.1, 0.3, 1.0, 3.0)
"""Rates relative to the inverse of the gradient's largest curvature."""

MOMENTUM = 0.3
OURS: dict[str, dict[str, Any]] = {
    "lsi, k = 16": {"sampler": "lsi", "rank": 16},
    "lsi, k = 1": {"sampler": "lsi", "rank": 1},
    "tangent, k = 1": {"sampler": "tangent", "rank": 1},
    "tangent, k = 16": {"sampler": "tangent", "rank": 16},
    "tangent, k = 8": {"sampler": "tangent", "rank": 8},
    "whole update": {"rank": "full"},
}


@dataclass(frozen=True)
class Problem:
    """A function of a matrix with orthonormal columns whose minimum is known.

    Attributes:
        title: what it is.
        shape: n and p.
        loss: the function, of W ``(n, p)``.
        gap: the relative distance of its value from the minimum.
        scale: the largest curvature, by whose inverse rates are multiplied.
    """

    title: str
    shape: tuple[int, int]
    loss: Callable[[Tensor], Tensor]
    gap: Callable[[Tensor], float]
    scale: float


def pca(n: int, p: int, seed: int = 0) -> Problem:
    """Online PCA: maximise tr(W^T A W) / 2 for eigenvalues of A from 0.01 to 10."""
    torch.manual_seed(seed)
    eigenvalues = 10 * torch.logspace(-3, 0, n)
    basis = haar_(torch.empty(n, n))
    a = basis @ torch.diag(eigenvalues) @ basis.mT
    best = float(eigenvalues.double().sort().values[-p:].sum())
    return Problem(
        f"online PCA, {n} x {p}",
        (n, p),
        lambda w: -0.5 * (w * (a @ w)).sum(),
        lambda w: (best - float((w.double() * (a.double() @ w.double())).sum())) / best,
        scale=10.0,
    )


def procrustes(n: int, seed: int = 0) -> Problem:
    """Orthogonal Procrustes: maximise tr(W^T B) for a Gaussian B, over rotations."""
    torch.manual_seed(seed)
    b = torch.randn(n, n)
    u, s, vh = torch.linalg.svd(b.double())
    if torch.linalg.slogdet(u @ vh).sign < 0:  # no path leads to the other component of the orthogonal matrices
        b = b - 2 * (s[-1] * torch.outer(u[:, -1], vh[-1])).float()
    best = float(torch.linalg.svdvals(b.double()).sum())
    return Problem(
        f"orthogonal Procrustes, {n} x {n}",
        (n, n),
        lambda w: -(w * b).sum(),
        lambda w: (best - float((w * b).double().sum())) / best,
        scale=float(torch.linalg.matrix_norm(b, 2)),
    )


Start = Callable[[Tensor, float], tuple[nn.Parameter, Callable[[], Any], Callable[[], Tensor]]]
"""Takes the first W and a rate to the parameter, its optimizer's step, and a function that returns W."""


def ours(settings: dict[str, Any]) -> Start:
    def start(w: Tensor, rate: float) -> tuple[nn.Parameter, Callable[[], Any], Callable[[], Tensor]]:
        module = nn.Module()
        module.weight = nn.Parameter(w.clone())
        orthogonal(module)
        optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=MOMENTUM)
        Projector(module, **settings).attach(optimizer)
        return module.weight, optimizer.step, lambda: module.weight

    return start


def pogo(w: Tensor, rate: float) -> tuple[nn.Parameter, Callable[[], Any], Callable[[], Tensor]]:
    from pogo import POGO, base

    parameter = nn.Parameter(w.mT.clone()[None])  # rows are orthonormal there
    optimizer = POGO([parameter], base.SGD(momentum=MOMENTUM), rate)
    return parameter, optimizer.step, lambda: parameter[0].mT


def riemannian_sgd(w: Tensor, rate: float) -> tuple[nn.Parameter, Callable[[], Any], Callable[[], Tensor]]:
    import geoopt

    parameter = geoopt.ManifoldParameter(w.clone(), manifold=geoopt.Stiefel())
    optimizer = geoopt.optim.RiemannianSGD([parameter], lr=rate, momentum=MOMENTUM)
    return parameter, optimizer.step, lambda: parameter


def contestants() -> dict[str, Start]:
    """The methods that are installed, by name."""
    found = {name: ours(settings) for name, settings in OURS.items()}
    if find_spec("pogo"):
        found["POGO"] = pogo
    if find_spec("geoopt"):
        found["geoopt RSGD"] = riemannian_sgd
    return found


def run(problem: Problem, start: Start, rate: float, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Train until the smallest gap is reached or the time is up; the step and the second at which each gap was."""
    torch.manual_seed(seed + 1)
    first = haar_(torch.empty(problem.shape))
    if problem.shape[0] == problem.shape[1]:
        first[0] *= torch.linalg.slogdet(first).sign  # a rotation, as the optimum is
    parameter, step, weight = start(first, rate / problem.scale)
    row: dict[str, Any] = {"problem": problem.title, "rate": rate, "gap": 1.0}
    elapsed, count = 0.0, 0
    while elapsed < seconds and GAPS[-1] not in row:
        begun = time.perf_counter()
        for _ in range(10):
            parameter.grad = None
            problem.loss(weight()).backward()
            step()
        elapsed += time.perf_counter() - begun
        count += 10
        row["gap"] = problem.gap(weight().detach())
        for gap in GAPS:
            if gap not in row and row["gap"] < gap:
                row[gap] = (count, elapsed)
        if not row["gap"] < 10:  # it has diverged
            break
    return row | {"steps": count, "seconds": elapsed, "error": float(unitarity_error(weight().detach()))}


def better(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether a run reached the smaller gap, or the same one sooner."""
    for gap in reversed(GAPS):
        if (gap in first) != (gap in second):
            return gap in first
        if gap in first:
            return bool(first[gap][1] < second[gap][1])
    return bool(first["gap"] < second["gap"])


def main() -> None:
    """Race all contestants on both problems, print a table for each, and write all runs to a CSV file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.manifold", description=__doc__)
    parser.add_argument("--n", type=int, default=400, help="rows of the PCA's weight (2000 in the example of POGO)")
    parser.add_argument("--p", type=int, default=300, help="its columns (1500 in the example of POGO)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training, for each method and rate")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/manifold.csv"))
    options = parser.parse_args()
    console = Console()
    console.print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}", highlight=False)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", buffering=1) as file:  # an interrupted race keeps its rows
        writer = csv.writer(file)
        writer.writerow(["problem", "method", "rate", "gap", "steps", "seconds", "unitarity error"])
        for problem in (pca(options.n, options.p), procrustes(options.p)):
            table = Table("", "rate", *(f"gap {gap:g}: steps, s" for gap in GAPS), "last gap", title=problem.title)
            for name, start in contestants().items():
                best: dict[str, Any] = {}
                for rate in RATES:
                    row = run(problem, start, rate, options.seconds)
                    values = (row["gap"], row["steps"], row["seconds"], row["error"])
                    writer.writerow([problem.title, name, rate, *values])
                    best = row if not best or better(row, best) else best
                reached = (f"{best[gap][0]}, {best[gap][1]:.2f}" if gap in best else "-" for gap in GAPS)
                table.add_row(name, f"{best['rate']:g}", *reached, f"{best['gap']:.1e}")
            console.print(table)


if __name__ == "__main__":
    main()
