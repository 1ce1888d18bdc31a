"""``python -m benchmarks.study``: which settings of the method learn best, over problems, optimizers and seeds.

A run is one problem, optimizer, setting of the method, rate of the constrained weight and seed. Its result is a row of
a CSV file; runs whose row is there already are not repeated, so that a study goes on where it was interrupted. The rate
of the constrained weight is searched for each contestant on one grid; everything else keeps its own.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import manifold
from projunn_lightning import Projector, orthogonal
from projunn_lightning.constraint import declared
from projunn_lightning.nn import UnitaryRNN

CONTESTANTS: dict[str, dict[str, Any]] = {
    "lsi 1": {"sampler": "lsi", "rank": 1},
    "lsi 8": {"sampler": "lsi", "rank": 8},
    "column 8": {"sampler": "column", "rank": 8},
    "subspace 8": {"sampler": "subspace", "rank": 8},
    "lsi 8, 0.9": {"sampler": "lsi", "rank": 8, "feedback": 0.9},
    "tangent 1": {"sampler": "tangent", "rank": 1},
    "tangent 8": {"sampler": "tangent", "rank": 8},
    "tangent 1, 0.9": {"sampler": "tangent", "rank": 1, "feedback": 0.9},
    "tangent 8, 0.5": {"sampler": "tangent", "rank": 8, "feedback": 0.5},
    "tangent 8, 0.9": {"sampler": "tangent", "rank": 8, "feedback": 0.9},
    "full": {"rank": "full"},
    "skew 8": {"sampler": "tangent", "rank": 8, "coordinates": "skew"},
    "skew 1, 0.9": {"sampler": "tangent", "rank": 1, "feedback": 0.9, "coordinates": "skew"},
    "skew 4, 0.9": {"sampler": "tangent", "rank": 4, "feedback": 0.9, "coordinates": "skew"},
    "skew 8, 0.9": {"sampler": "tangent", "rank": 8, "feedback": 0.9, "coordinates": "skew"},
    "skew full": {"rank": "full", "coordinates": "skew"},
}
"""The settings of the method, by the name that tables use: sampler or coordinates, rank, feedback."""


class MatrixRMSprop(torch.optim.Optimizer):
    """RMSprop with one scale for each matrix: the update keeps the rank of the gradient."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Divide each gradient by the root of the running mean of its squares over entries and steps."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                square = parameter.grad.square().mean()
                state["square"] = 0.99 * state.get("square", torch.zeros(())) + 0.01 * square
                parameter.add_(parameter.grad / (state["square"].sqrt() + 1e-12), alpha=-group["lr"])


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "matrix": MatrixRMSprop,
}


@dataclass(frozen=True)
class Problem:
    """A problem with one constrained weight.

    Attributes:
        make: takes a seed to the module, the loss as a function of the step, and the figure that is to be small.
        steps: the number of training steps.
        rates: the grid of rates of the constrained weight, for each optimizer of :data:`OPTIMIZERS`.
        unit: what the figure is.
    """

    make: Callable[[int], tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]]
    steps: int
    rates: dict[str, tuple[float, ...]]
    unit: str


def pca(n: int, p: int) -> Callable[[int], tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]]:
    """Online PCA: -tr(W^T A W)/2 with eigenvalues of A from 0.01 to 10; the relative gap to the optimum."""

    def make(seed: int) -> tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]:
        problem = manifold.pca(n, p, seed)
        module = orthogonal(nn.Linear(p, n, bias=False), init="haar")
        return module, lambda step: problem.loss(module.weight), lambda: problem.gap(module.weight.detach())

    return make


def rotation(n: int) -> Callable[[int], tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]]:
    """An unknown rotation from its entries; the relative distance to it."""

    def make(seed: int) -> tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]:
        torch.manual_seed(seed)
        x = torch.randn(n, n)
        target = torch.matrix_exp(0.5 * (x - x.mT) / n**0.5)
        module = orthogonal(nn.Linear(n, n, bias=False), init="identity")

        def loss(step: int) -> Tensor:
            return 0.5 * (module.weight - target).square().sum()

        def distance() -> float:
            return float((module.weight.detach() - target).norm() / target.norm())

        return module, loss, distance

    return make


class Reader(nn.Module):
    """A unitary RNN with a linear read-out."""

    def __init__(self, inputs: int, hidden: int, outputs: int, **options: Any) -> None:
        super().__init__()
        self.rnn = UnitaryRNN(inputs, hidden, **options)
        self.readout = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x)[0])


def adding(length: int, hidden: int) -> Callable[[int], tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]]:
    """The adding problem; the mean squared error over that of answering 1."""
    from projunn_lightning.data.adding import adding_problem

    def make(seed: int) -> tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]:
        torch.manual_seed(seed)
        model = Reader(2, hidden, 1, init="cayley")

        def loss_on(count: int, key: int) -> Tensor:
            x, y = adding_problem(length, count, torch.Generator().manual_seed(key))
            return nn.functional.mse_loss(model(x)[:, -1], y)

        def tested() -> float:
            with torch.no_grad():
                return 6 * float(loss_on(2000, 10**9 + seed))

        return model, lambda step: loss_on(50, 10**6 * seed + step), tested

    return make


def copying(delay: int, hidden: int) -> Callable[[int], tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]]:
    """Copying memory; the cross-entropy over that of guessing the symbols."""
    from projunn_lightning.data.copying import copying_memory

    def make(seed: int) -> tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]:
        torch.manual_seed(seed)
        model = Reader(10, hidden, 9, init="henaff")
        baseline = 10 * math.log(8) / (delay + 20)

        def loss_on(count: int, key: int) -> Tensor:
            x, y = copying_memory(delay, 10, 8, count, torch.Generator().manual_seed(key))
            return nn.functional.cross_entropy(model(nn.functional.one_hot(x, 10).float()).flatten(0, 1), y.flatten())

        def tested() -> float:
            with torch.no_grad():
                return float(loss_on(500, 10**9 + seed)) / baseline

        return model, lambda step: loss_on(32, 10**6 * seed + step), tested

    return make


def permuted_mnist(hidden: int) -> Callable[[int], tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]]:
    """Permuted MNIST; the share of the test images whose class is wrong."""
    from projunn_lightning.data import PixelSequence

    def make(seed: int) -> tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]:
        task = PixelSequence()
        task.setup()
        prepare, nothing = task.preparation("train"), torch.Generator()
        (train, classes), (test, expected) = (task.images[split] for split in ("train", "test"))
        torch.manual_seed(seed)
        model = Reader(1, hidden, 10, init="henaff")
        shuffled = torch.cat([torch.randperm(len(train)) for _ in range(2)]).split(128)

        def loss(step: int) -> Tensor:
            chosen = shuffled[step]
            return nn.functional.cross_entropy(model(prepare(train[chosen], nothing))[:, -1], classes[chosen])

        def wrong() -> float:
            with torch.no_grad():
                guessed = [model(prepare(images, nothing))[:, -1].argmax(1) for images in test.split(1000)]
            return float((torch.cat(guessed) != expected).double().mean())

        return model, loss, wrong

    return make


RNN_RATES = dict.fromkeys(("rmsprop", "adam"), (1e-4, 3e-4, 1e-3, 3e-3)) | {"matrix": (3e-4, 1e-3, 3e-3, 1e-2)}
PROBLEMS = {
    "pca 120": Problem(pca(120, 90), 2000, {"sgd": (0.01, 0.03, 0.1, 0.3)}, "relative gap"),
    "pca 400": Problem(pca(400, 300), 3000, {"sgd": (0.01, 0.03, 0.1, 0.3)}, "relative gap"),
    "rotation 64": Problem(
        rotation(64),
        300,
        {
            "sgd": (0.05, 0.1, 0.25, 0.5, 1.0),
            "rmsprop": (1e-3, 3e-3, 1e-2, 3e-2),
            "adam": (1e-3, 3e-3, 1e-2, 3e-2),
            "matrix": (1e-3, 3e-3, 1e-2, 3e-2),
        },
        "relative distance",
    ),
    "adding 50": Problem(adding(50, 64), 4000, RNN_RATES, "share of the baseline's error"),
    "adding 200": Problem(adding(200, 128), 6000, RNN_RATES, "share of the baseline's error"),
    "copying 50": Problem(copying(50, 64), 800, RNN_RATES, "share of the baseline's loss"),
    "copying 200": Problem(copying(200, 128), 1500, RNN_RATES, "share of the baseline's loss"),
    "mnist 784": Problem(permuted_mnist(116), 840, RNN_RATES, "share of wrong answers"),
}
COLUMNS = ("problem", "optimizer", "contestant", "rate", "seed", "figure", "seconds", "unitarity error")


def run(problem: Problem, optimizer: str, contestant: str, rate: float, seed: int) -> dict[str, Any]:
    """Train once; a cosine takes all rates to zero where there is more than the constrained weight to train."""
    module, loss, evaluate = problem.make(seed)
    names = declared(module)
    constrained = [p for name, p in module.named_parameters() if name in names]
    others = [p for name, p in module.named_parameters() if name not in names]
    optimizers = [OPTIMIZERS[optimizer](constrained, lr=rate)]
    if others:
        optimizers.append(OPTIMIZERS["rmsprop" if optimizer == "matrix" else optimizer](others, lr=1e-3))
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, problem.steps) for each in optimizers if others]
    projector = Projector(module, seed=seed, **CONTESTANTS[contestant]).attach(*optimizers)
    start = time.perf_counter()
    for step in range(problem.steps):
        for each in optimizers:
            each.zero_grad()
        value = loss(step)
        value.backward()
        for each in (*optimizers, *schedules):
            each.step()
        if step % 100 == 99 and not math.isfinite(float(value.detach())):
            break
    seconds = time.perf_counter() - start
    (error,) = projector.unitarity_errors().values()
    figure = evaluate()
    return {
        "figure": figure if math.isfinite(figure) else math.inf,
        "seconds": seconds,
        "unitarity error": float(error),
    }


def planned(names: list[str], contestants: list[str], seeds: int, best: Path | None) -> Iterator[tuple[Any, ...]]:
    """Every run of the study: (problem, optimizer, contestant, rate, seed); at a search's best rates where given."""
    known = best_rates(best) if best else {}
    for name in names:
        for optimizer, rates in PROBLEMS[name].rates.items():
            for contestant in contestants:
                family = (name.partition(" ")[0], optimizer, contestant)
                if best and family not in known:
                    continue
                for rate in [known[family]] if best else rates:
                    yield from ((name, optimizer, contestant, rate, seed) for seed in range(seeds))


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def medians(path: Path) -> dict[tuple[str, str, str], dict[float, list[float]]]:
    """The figures of all seeds, by (problem, optimizer, contestant) and rate."""
    found: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    for row in read(path):
        key = (row["problem"], row["optimizer"], row["contestant"])
        found.setdefault(key, {}).setdefault(float(row["rate"]), []).append(float(row["figure"]))
    return found


def best_rates(path: Path) -> dict[tuple[str, str, str], float]:
    """The rate with the smallest median figure, by (kind of problem, optimizer, contestant)."""
    return {
        (problem.partition(" ")[0], optimizer, contestant): min(rates, key=lambda rate: statistics.median(rates[rate]))
        for (problem, optimizer, contestant), rates in medians(path).items()
    }


def table(path: Path) -> Iterator[str]:
    """Lines of a table: the median and the range over seeds at the best rate of each contestant."""
    for (problem, optimizer, contestant), rates in medians(path).items():
        rate = min(rates, key=lambda each: statistics.median(rates[each]))
        figures = rates[rate]
        low, middle, high = min(figures), statistics.median(figures), max(figures)
        yield (
            f"{problem:12s} {optimizer:8s} {contestant:15s} rate {rate:<7.3g} "
            f"{middle:9.3g}  ({low:.3g} to {high:.3g}, {len(figures)} seeds)"
        )


def draw(path: Path, picture: Path) -> None:
    """Draw the median and the range of each contestant at its best rate, a panel for each problem and optimizer."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (problem, optimizer, contestant), rates in medians(path).items():
        rate = min(rates, key=lambda each: statistics.median(rates[each]))
        panels.setdefault((problem, optimizer), {})[contestant] = rates[rate]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((5 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for each, ((problem, optimizer), contestants) in zip(axes, panels.items(), strict=False):
        for place, (_, figures) in enumerate(contestants.items()):
            each.plot([min(figures), max(figures)], [place, place], color="C0", linewidth=1)
            each.plot(statistics.median(figures), place, "o", color="C0")
        each.set_yticks(range(len(contestants)), list(contestants))
        each.invert_yaxis()
        each.set(xscale="log", title=f"{problem}, {optimizer}", xlabel=PROBLEMS[problem].unit)
        each.grid(alpha=0.3)
    for each in axes[len(panels) :]:
        each.remove()
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Run what is missing, or print and draw what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("problems", nargs="*", help=f"some of {', '.join(PROBLEMS)} (all)")
    parser.add_argument("--contestants", nargs="*", default=list(CONTESTANTS), help="some of the contestants (all)")
    parser.add_argument("--optimizers", nargs="*", help="some of the optimizers (all of the problem)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--best", type=Path, help="the CSV file of a search: run each contestant at its best rate there"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/study.csv"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many minutes")
    parser.add_argument("--draw", type=Path, help="draw the output instead of running, to this file")
    options = parser.parse_args()
    if options.draw:
        print(*table(options.output), sep="\n")
        draw(options.output, options.draw)
        return
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = {tuple(row[name] for name in COLUMNS[:5]) for row in read(options.output)}
    end = time.monotonic() + 60 * options.minutes
    for plan in planned(options.problems or list(PROBLEMS), options.contestants, options.seeds, options.best):
        if tuple(map(str, plan)) in done or (options.optimizers and plan[1] not in options.optimizers):
            continue
        if time.monotonic() > end:
            print("time is up; the same command goes on")
            return
        name, optimizer, contestant, rate, seed = plan
        row = dict(zip(COLUMNS, plan, strict=False)) | run(PROBLEMS[name], optimizer, contestant, rate, seed)
        new = not options.output.exists()
        with options.output.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(*plan, f"{row['figure']:.3g} in {row['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
