"""Runs problems over contestants, rates and seeds, for :mod:`benchmarks.study`, ``bases`` and ``cases``.

A run is one problem, optimizer, contestant (a setting of the method), rate of the constrained weights and seed. Its
result is a row of a CSV file; runs whose row is there already are not repeated, so that a study goes on where it was
interrupted. The rate of the constrained weights is searched for each contestant on one grid; everything else keeps its
own.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from projunn_lightning import Projector
from projunn_lightning.constraint import declared

Made = tuple[nn.Module, Callable[[int], Tensor], Callable[[], float]]
"""A module, its loss as a function of the step, and the figure that is to be small."""


@dataclass(frozen=True)
class Contestant:
    """What is compared with others on one problem.

    Attributes:
        settings: the settings of the method. With None nothing is constrained: the same weights are trained from the
            same start as plain weights.
        model: options of the problem's ``make``.
    """

    settings: dict[str, Any] | None
    model: dict[str, Any] = field(default_factory=dict)


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
    """A problem with weights that can be constrained.

    Attributes:
        make: takes a seed, and the options of a contestant, to a module that declares its constrained weights.
        steps: the number of training steps.
        rates: the grid of rates of the constrained weights, for each optimizer of :data:`OPTIMIZERS`.
        unit: what the figure is.
        contestants: what is compared, by the name that tables use.
    """

    make: Callable[..., Made]
    steps: int
    rates: dict[str, tuple[float, ...]]
    unit: str
    contestants: dict[str, Contestant]


COLUMNS = ("problem", "optimizer", "contestant", "rate", "seed", "figure", "seconds", "unitarity error")


def split(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that are declared orthogonal, and the others that are trained."""
    names = declared(module)
    constrained = [p for name, p in module.named_parameters() if name in names]
    return constrained, [p for name, p in module.named_parameters() if name not in names and p.requires_grad]


def run(problem: Problem, optimizer: str, contestant: str, rate: float, seed: int) -> dict[str, Any]:
    """Train once; a cosine takes all rates to zero where there is more than the constrained weights to train."""
    chosen = problem.contestants[contestant]
    module, loss, evaluate = problem.make(seed, **chosen.model)
    constrained, others = split(module)
    optimizers = [OPTIMIZERS[optimizer](constrained, lr=rate)]
    if others:
        optimizers.append(OPTIMIZERS["rmsprop" if optimizer == "matrix" else optimizer](others, lr=1e-3))
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, problem.steps) for each in optimizers if others]
    projector = Projector(module, seed=seed, **(chosen.settings or {}))
    if chosen.settings is not None:
        projector.attach(*optimizers)
    start = time.process_time()  # of this process alone, so that other programs do not count
    for step in range(problem.steps):
        for each in optimizers:
            each.zero_grad()
        value = loss(step)
        value.backward()
        for each in (*optimizers, *schedules):
            each.step()
        if step % 100 == 99 and not math.isfinite(float(value.detach())):
            break
    seconds = time.process_time() - start
    figure = evaluate()
    return {
        "figure": f"{figure if math.isfinite(figure) else math.inf:.6g}",
        "seconds": f"{seconds:.1f}",
        "unitarity error": f"{max(map(float, projector.unitarity_errors().values())):.1e}",
    }


def planned(
    problems: dict[str, Problem], chosen: list[str] | None, seeds: int, best: Path | None
) -> Iterator[tuple[Any, ...]]:
    """Every run of the chosen contestants, or of all: (problem, optimizer, contestant, rate, seed).

    At a search's best rates where given.
    """
    known = best_rates(best) if best else {}
    for name, problem in problems.items():
        for optimizer, rates in problem.rates.items():
            for contestant in problem.contestants:
                if chosen is not None and contestant not in chosen:
                    continue
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


def at_best_rate(
    problems: dict[str, Problem], path: Path
) -> dict[tuple[str, str, str], tuple[float, list[float], float]]:
    """The best rate, its figures of all seeds and its median seconds, by (problem, optimizer, contestant).

    They are in the order of the problems and of their contestants, whatever the order of the rows in the file.
    """
    order = [
        (name, optimizer, contestant)
        for name, problem in problems.items()
        for optimizer in problem.rates
        for contestant in problem.contestants
    ]
    figures, found = medians(path), {}
    for key in sorted(figures, key=order.index):
        rate = min(figures[key], key=lambda each: statistics.median(figures[key][each]))
        seconds = [
            float(row["seconds"])
            for row in read(path)
            if (row["problem"], row["optimizer"], row["contestant"]) == key and float(row["rate"]) == rate
        ]
        found[key] = rate, figures[key][rate], statistics.median(seconds)
    return found


def table(problems: dict[str, Problem], path: Path) -> Iterator[str]:
    """Lines of a Markdown table: the median and the range over seeds at the best rate of each contestant."""
    yield "| problem | optimizer | contestant | median (range) | seeds | best rate | seconds |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (problem, optimizer, contestant), (rate, figures, seconds) in at_best_rate(problems, path).items():
        cells = (problem, optimizer, contestant, spread(figures), str(len(figures)), f"{rate:g}", f"{seconds:.1f}")
        yield f"| {' | '.join(cells)} |"


def spread(figures: list[float]) -> str:
    """The median, and the range if there is one, with three digits.

    Whole numbers have all their digits. Figures from 99.9 to 100 have four, so that 99.96 % does not read 100 %.
    """
    if not figures:
        return ""
    low, middle, high = (_digits(each) for each in (min(figures), statistics.median(figures), max(figures)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _digits(figure: float) -> str:
    if abs(figure) >= 100 or figure == round(figure):
        return f"{figure:,.0f}"
    if abs(figure) < 10:
        return f"{figure:.3g}"
    return f"{figure:.1f}" if abs(figure) < 99.9 else f"{figure:.4g}"


def draw(problems: dict[str, Problem], path: Path, picture: Path) -> None:
    """Draw the median and the range of each contestant at its best rate, a panel for each problem and optimizer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    panels: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (problem, optimizer, contestant), (_, figures, _) in at_best_rate(problems, path).items():
        panels.setdefault((problem, optimizer), {})[contestant] = figures
    columns = min(2, len(panels))  # the lettering stays legible in the width of a page
    rows = -(-len(panels) // columns)
    most = max(map(len, panels.values()))
    figure = Figure((5 * columns, (1.2 + 0.25 * most) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for each, ((problem, optimizer), contestants) in zip(axes, panels.items(), strict=False):
        for place, (contestant, figures) in enumerate(contestants.items()):
            color = "C1" if problems[problem].contestants[contestant].settings is None else "C0"
            each.plot([min(figures), max(figures)], [place, place], color=color, linewidth=1)
            each.plot(statistics.median(figures), place, "o", color=color)
        each.set_yticks(range(len(contestants)), list(contestants))
        each.invert_yaxis()
        finite = [figure for figures in contestants.values() for figure in figures if 0 < figure < math.inf] or [1.0]
        scale = "log" if max(finite) > 10 * min(finite) else "linear"
        each.set(xscale=scale, title=f"{problem}, {optimizer}", xlabel=problems[problem].unit)
        if scale == "log":
            decades = max(finite) > 1000 * min(finite)
            each.xaxis.set_major_locator(LogLocator(subs=(1,) if decades else (1, 2, 5)))
            each.xaxis.set_major_formatter("{x:g}")
            each.xaxis.set_minor_formatter(NullFormatter())
        each.grid(alpha=0.3)
    for each in axes[len(panels) :]:
        each.remove()
    figure.savefig(picture, dpi=110)


def main(problems: dict[str, Problem], program: str, description: str | None) -> None:
    """The command of a study: run what is missing, or print and draw what is there."""
    options = parsed(problems, program, description)
    if options.draw:
        print(*table(problems, options.output), sep="\n")
        draw(problems, options.output, options.draw)
        return
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = {tuple(row[name] for name in COLUMNS[:5]) for row in read(options.output)}
    end = time.monotonic() + 60 * options.minutes
    chosen = {name: problems[name] for name in options.problems or problems}
    for plan in planned(chosen, options.contestants, options.seeds, options.best):
        if tuple(map(str, plan)) in done or (options.optimizers and plan[1] not in options.optimizers):
            continue
        if time.monotonic() > end:
            print("time is up; the same command goes on")
            return
        name, optimizer, contestant, rate, seed = plan
        row = dict(zip(COLUMNS, plan, strict=False)) | run(problems[name], optimizer, contestant, rate, seed)
        new = not options.output.exists()
        with options.output.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(*plan, f"{row['figure']} in {row['seconds']} s", flush=True)


def parsed(problems: dict[str, Problem], program: str, description: str | None) -> argparse.Namespace:
    """The options of the command; names that no problem has are refused."""
    contestants = list(dict.fromkeys(name for problem in problems.values() for name in problem.contestants))
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("problems", nargs="*", help=f"some of {', '.join(problems)} (all)")
    parser.add_argument("--contestants", nargs="*", help=f"some of {'; '.join(contestants)} (all)")
    parser.add_argument("--optimizers", nargs="*", help="some of the optimizers (all of the problem)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--best", type=Path, help="the CSV file of a search: run each contestant at its best rate there"
    )
    parser.add_argument("--output", type=Path, default=Path(f"{program.replace('.', '/results/')}.csv"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many minutes")
    parser.add_argument("--draw", type=Path, help="draw the output instead of running, to this file")
    options = parser.parse_args()
    for kind, found, known in (
        ("problem", options.problems, list(problems)),
        ("contestant", options.contestants, contestants),
    ):
        if unknown := [name for name in found or () if name not in known]:
            parser.error(f"there is no {kind} {unknown[0]!r}; the {kind}s are {'; '.join(known)}")
    return options
