"""``python -m benchmarks.paper``: the runs behind the tables of results, and the tables.

``benchmarks/paper.yaml`` says which runs make which table. ``run`` trains those that are missing, each in a process
of its own with one thread. It goes on where it was interrupted, and writes the curves to ``docs/results/TABLE.csv``.
``table`` prints the tables from these files, and draws ``docs/figures/TABLE.png`` of the tables that have a picture.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.runner import read, spread
from projunn_lightning.cli import plot

ROOT = Path(__file__).parents[1]
COLUMNS = ("run", "seed", "epoch", "step", "metric", "figure", "minutes")
"""The columns of the curves. A finished run has rows of its validation, and then one of each figure of its test."""

_writing = threading.Lock()


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        key: its name in ``paper.yaml``.
        title: its title.
        curve: the metric of the validation.
        figures: the columns of the table: a metric of the test for each heading, and a factor of the metric.
        runs: the runs: ``name``, ``fit`` and, if there is one, ``published``.
        solved: the value of the curve below which the task is solved; None for a task without one.
        picture: whether the curves are drawn.
    """

    key: str
    title: str
    curve: str
    figures: dict[str, tuple[str, float]]
    runs: list[dict[str, Any]]
    solved: float | None = None
    picture: bool = False

    @property
    def file(self) -> Path:
        """The file of the curves."""
        return ROOT / "docs" / "results" / f"{self.key}.csv"


def tables() -> dict[str, Table]:
    """All tables, by their keys."""
    found = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return {key: Table(key, **described) for key, described in found.items()}


def command(run: dict[str, Any], seed: int) -> str:
    """The line that repeats a run, in the root of the repository."""
    return f"python -m projunn_lightning fit {run['fit']} --seed_everything {seed}"


def train(table: Table, run: dict[str, Any], seed: int, output: Path, until: float) -> None:
    """Train one run, or go on with it, until it is finished or the time is over, and keep its curve.

    Args:
        table: the table to which the run belongs.
        run: the run.
        seed: the seed.
        output: the folder of all logs and checkpoints.
        until: the end, as a time of ``time.monotonic``.
    """
    begun = time.monotonic()
    if begun >= until:
        return
    home = output / table.key / re.sub(r"\W+", "_", run["name"]) / f"seed_{seed}"
    home.mkdir(parents=True, exist_ok=True)
    part = f"part_{len(list(home.glob('part_*.txt'))):03}"
    last = max(home.glob("part_*/checkpoints/last*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    words = [*shlex.split(command(run, seed))[1:], *(["--ckpt_path", str(last)] if last else [])]
    words += ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(home), "--trainer.logger.name", ""]
    words += ["--trainer.logger.version", part, "--trainer.enable_progress_bar", "false"]
    log = home / f"{part}.txt"
    with log.open("w") as file:
        line, environment = [sys.executable, *words], os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            process.wait(timeout=until - begun)
        except subprocess.TimeoutExpired:
            process.terminate()
    if process.wait():
        print(f"{table.key}, {run['name']}, seed {seed}: stopped, see {log}", flush=True)
    minutes = home / "minutes.txt"
    before = float(minutes.read_text()) if minutes.exists() else 0.0
    minutes.write_text(str(before + (time.monotonic() - begun) / 60))
    with _writing:
        _keep(table, run["name"], seed, home)


def curve(table: Table, home: Path) -> Iterator[tuple[int, int, str, float]]:
    """The rows (epoch, step, metric, figure) of a run: of its validations, and of its test if it is finished."""
    rows = [row for path in sorted(home.glob("part_*/metrics.csv")) for row in read(path)]
    # The last row of a step counts: a run that goes on repeats what came after its checkpoint.
    validations = {int(row["step"]): row for row in rows if row.get(table.curve)}
    for step, row in sorted(validations.items()):
        yield int(row["epoch"]), step, table.curve, float(row[table.curve])
    for metric, _ in table.figures.values():
        for row in [row for row in rows if row.get(metric)][-1:]:
            yield int(row["epoch"]), int(row["step"]), metric, float(row[metric])


def _keep(table: Table, name: str, seed: int, home: Path) -> None:
    """Replace the rows of a run in the file of the curves."""
    order = [run["name"] for run in table.runs]
    others = [row for row in read(table.file) if (row["run"], row["seed"]) != (name, str(seed)) and row["run"] in order]
    minutes = f"{float((home / 'minutes.txt').read_text()):.1f}"
    values = ((name, seed, *row[:3], f"{row[3]:.4g}", minutes) for row in curve(table, home))
    rows = [*others, *(dict(zip(COLUMNS, each, strict=True)) for each in values)]
    partial = table.file.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (order.index(row["run"]), int(row["seed"]))))
    partial.rename(table.file)


def markdown(table: Table) -> Iterator[str]:
    """The lines of a table, and below it the lines that repeat its rows with the first seed.

    The table has the medians of the figures of the test, and their ranges over the seeds. A run that has not begun is
    left out.
    """
    solved = ["steps until solved", "minutes until solved"] if table.solved else []
    heads = ["run", "published", *table.figures, *solved, "seeds", "epochs", "steps", "minutes"]
    yield from (f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads)))
    begun = _begun(table)
    runs = [run for run in table.runs if run["name"] in begun]
    for run in runs:
        yield f"| {' | '.join([run['name'], str(run.get('published', '')), *_measured(table, begun[run['name']])])} |"
    yield from ("", "```sh")
    for run in runs:
        yield from (f"# {run['name']}", command(run, 0))
    yield "```"


def _begun(table: Table) -> dict[str, list[dict[str, str]]]:
    """The rows of each run that has begun, in the order of the table."""
    rows = read(table.file)
    own = {run["name"]: [row for row in rows if row["run"] == run["name"]] for run in table.runs}
    return {name: found for name, found in own.items() if found}


def _validations(table: Table, rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The rows of the validations of a run, a list for each seed."""
    curves: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["metric"] == table.curve:
            curves.setdefault(row["seed"], []).append(row)
    return list(curves.values())


def _measured(table: Table, rows: list[dict[str, str]]) -> Iterator[str]:
    """The cells of a run: its figures, and its seeds, epochs, steps and minutes.

    Seeds without a test are not finished.
    """
    curves = _validations(table, rows)
    tested = {row["seed"] for row in rows if row["metric"] != table.curve}
    last = [curve[-1] for curve in curves]
    for metric, factor in table.figures.values():
        yield spread([factor * float(row["figure"]) for row in rows if row["metric"] == metric])
    if table.solved:
        yield from _solved(table.solved, curves)
    yield str(len(tested)) + (f" of {len(last)} finished" if len(tested) < len(last) else "")
    yield spread([int(row["epoch"]) + 1 for row in last])
    yield spread([_steps(row) for row in last])
    yield spread([float(row["minutes"]) for row in last])


def _solved(threshold: float, curves: list[list[dict[str, str]]]) -> Iterator[str]:
    """The cells of the steps and of the minutes until the task was solved, over the seeds that solved it."""
    below = [[row for row in curve if float(row["figure"]) < threshold] for curve in curves]
    solved = [(first[0], curve[-1]) for first, curve in zip(below, curves, strict=True) if first]
    if not solved:
        yield from ("not solved", "")
        return
    number = f"{len(solved)} of {len(curves)} seeds" if len(solved) < len(curves) else ""
    yield ", ".join(filter(None, (spread([_steps(first) for first, _ in solved]), number)))
    yield spread([float(last["minutes"]) * _steps(first) / _steps(last) for first, last in solved])


def _steps(row: dict[str, str]) -> int:
    return int(row["step"]) + 1


def draw(table: Table) -> None:
    """Draw the curves of a table, a line for each run with its range over the seeds."""
    runs = [
        plot.Run(name, [{_steps(row): float(row["figure"]) for row in curve} for curve in _validations(table, rows)])
        for name, rows in _begun(table).items()
    ]
    _, svg = plot.draw(runs, table.curve, None, ROOT / "docs" / "figures" / table.key)
    svg.unlink()  # the docs show the PNG


def show(table: Table) -> None:
    """Print a table, and draw its picture."""
    if not table.file.exists():
        print(f"{table.title}: no run yet, python -m benchmarks.paper run {table.key} trains them\n")
        return
    print(f"{table.title}\n\n" + "\n".join(markdown(table)) + "\n")
    if table.picture:
        draw(table)


def main() -> None:
    """Run what is missing, or print the tables."""
    known = tables()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("what", choices=["run", "table"], help="train what is missing, or print the tables")
    parser.add_argument("tables", nargs="*", help=f"some of {', '.join(known)} (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="the number of seeds (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, help="the number of runs at a time (default: 2)")
    parser.add_argument("--minutes", type=float, default=150.0, help="the time for all runs (default: 150)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder of logs and checkpoints")
    options = parser.parse_args()
    if unknown := set(options.tables) - set(known):
        parser.error(f"unknown table {', '.join(sorted(unknown))}, expected some of {', '.join(known)}")
    chosen = [known[key] for key in options.tables or known]
    if options.what == "table":
        for table in chosen:
            show(table)
        return
    until = time.monotonic() + 60 * options.minutes
    done = {(t.key, row["run"], int(row["seed"])) for t in chosen for row in read(t.file) if row["metric"] != t.curve}
    missing = [
        (table, run, seed)
        for seed in range(options.seeds)
        for table in chosen
        for run in table.runs
        if (table.key, run["name"], seed) not in done
    ]
    if not missing:
        print("no run is missing; python -m benchmarks.paper table prints the tables, and the lines that repeat a run")
    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(train, *each, options.output, until) for each in missing]:
            future.result()


if __name__ == "__main__":
    main()
