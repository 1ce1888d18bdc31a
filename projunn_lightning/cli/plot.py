"""``projunn plot``: draw the curves of several runs, with the mean and the range over seeds and the task's baseline."""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from projunn_lightning.errors import ConfigError, near_misses

Curve = dict[int, float]
"""The values of a metric by step."""

FORMATS = (".png", ".svg")
WIDE = 20
"""The ratio of the largest to the smallest value above which the axis is logarithmic."""


@dataclass(frozen=True)
class Run:
    """Curves that are drawn as one line: of one run, or of several seeds."""

    name: str
    curves: list[Curve]

    def summary(self) -> list[tuple[int, float, float, float]]:
        """The step, the mean, the smallest and the largest value over the seeds that reached the step."""
        steps = sorted({step for curve in self.curves for step in curve})
        values = ([curve[step] for curve in self.curves if step in curve] for step in steps)
        return [(step, statistics.mean(v), min(v), max(v)) for step, v in zip(steps, values, strict=True)]


def run(arguments: list[str]) -> None:
    """Run ``projunn plot``; its ``--help`` describes the arguments.

    Raises:
        ConfigError: if a folder does not exist or holds no log with the metric.
    """
    parser = argparse.ArgumentParser(
        prog="projunn plot",
        description="Draw the curves of runs. A run is a log folder of `projunn fit` (TensorBoard or CSV), a layer of "
        "a comparison, whose seeds become a mean with a range, or a comparison, which has a line for each layer.",
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    folders = [layer for folder in options.runs for layer in _layers(folder)]
    names = _names(folders)
    runs = [Run(name, _curves(folder, options.metric)) for name, folder in zip(names, folders, strict=True)]
    baseline = _baseline(folders) if options.metric.endswith("loss") else None
    for path in draw(runs, options.metric, baseline, options.output):
        Console().print(f"plot: {path}", style="bold", highlight=False, soft_wrap=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``projunn plot`` to a parser."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="log folder of a run or of a comparison")
    parser.add_argument("--metric", default="val/loss", help="the logged metric (default: val/loss)")
    parser.add_argument(
        "--output", type=Path, default=Path("plot"), help="path of the pictures without .png and .svg (default: plot)"
    )


def draw(runs: list[Run], metric: str, baseline: float | None, output: Path) -> list[Path]:
    """Draw runs with matplotlib.

    Args:
        runs: what is drawn.
        metric: the label of the values.
        baseline: the height of a dotted line; None for no line.
        output: the path without its suffix. The folder is made.

    Returns:
        The paths that were written: a PNG and an SVG file.
    """
    from matplotlib.figure import Figure

    figure = Figure((7, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for each in runs:
        steps, means, lows, highs = zip(*each.summary(), strict=True)
        (line,) = axes.plot(steps, means, label=each.name, linewidth=1.5)
        if len(each.curves) > 1:
            axes.fill_between(steps, lows, highs, color=line.get_color(), alpha=0.2, linewidth=0)
    if baseline is not None:
        axes.axhline(baseline, color="0.5", linestyle=":", linewidth=1, label="baseline")
    values = [value for each in runs for _, *values in each.summary() for value in values]
    if min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel=metric)
    axes.locator_params(axis="x", nbins=6)  # the labels of more ticks touch where steps have five digits
    axes.grid(alpha=0.2)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    paths = [output.with_name(output.name + suffix) for suffix in FORMATS]
    for path in paths:
        figure.savefig(path)
    return paths


def _layers(folder: Path) -> list[Path]:
    """The folder itself, or those of the layers of a comparison."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; pass the log folder of a run, such as lightning_logs/version_0")
    layers = sorted({path.parent.relative_to(folder).parts[0] for path in folder.glob("*/**/result.json")})
    return [folder / layer for layer in layers if not layer.startswith("seed_")] or [folder]


def _names(folders: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for count in range(1, max(len(folder.resolve().parts) for folder in folders)):
        names = ["/".join(folder.resolve().parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _curves(folder: Path, metric: str) -> list[Curve]:
    homes = sorted(folder.glob("seed_*")) or [folder]
    curves = [curve for home in homes if (curve := _curve(home, metric))]
    if not curves:
        known = {name for home in homes for name in _logs(home)}
        choices = sorted(name for name in known if name.startswith(("train/", "val/", "test/"))) or sorted(known)
        raise ConfigError(
            f"{folder} has no log of {metric!r}, expected one of {near_misses(metric, choices)}"
            if choices
            else f"{folder} has no log; pass the log folder of a run, such as lightning_logs/version_0"
        )
    return curves


def _curve(home: Path, metric: str) -> Curve:
    return _logs(home).get(metric, {})


def _logs(home: Path) -> dict[str, Curve]:
    """All metrics in the logs of a run. A run that went on has several files, which are joined."""
    logs: dict[str, Curve] = {}
    for path in sorted(home.rglob("metrics.csv")):
        for row in _rows(path):
            step = int(row.pop("step") or 0)
            for name, text in row.items():
                if text:
                    logs.setdefault(name, {})[step] = float(text)
    for path in sorted(home.rglob("events.out.tfevents.*")):
        for name, curve in _events(path).items():
            logs.setdefault(name, {}).update(curve)
    return logs


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _events(path: Path) -> dict[str, Curve]:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    board = event_accumulator.EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    return {tag: {event.step: event.value for event in board.Scalars(tag)} for tag in board.Tags()["scalars"]}


def _baseline(folders: list[Path]) -> float | None:
    """The loss of the task's baseline, if all runs have the same one."""
    found = {_baseline_of(folder) for folder in folders}
    return found.pop() if len(found) == 1 else None


def _baseline_of(folder: Path) -> float | None:
    """From the result of a comparison, or else from the hyperparameters of the run."""
    for path in sorted(folder.rglob("result.json")):
        result = json.loads(path.read_text())
        return float(f"{100 * result['test loss'] / result['% of baseline']:.6g}")
    for path in sorted(folder.rglob("hparams.yaml")):
        return (yaml.safe_load(path.read_text()) or {}).get("baseline_loss")
    return None
