"""``python -m benchmarks.paper``: the runs behind the tables of results, and the tables.

``benchmarks/paper.yaml`` says which runs make which table. ``run`` trains those that are missing, each in a process
of its own with one thread. It goes on where it was interrupted, and writes the curves to ``docs/results/TABLE.csv``.
``table`` prints the tables from these files.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import statistics
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

from benchmarks.runner import read

ROOT = Path(__file__).parents[1]
COLUMNS = ("run", "seed", "epoch", "step", "split", "figure", "minutes")
"""The columns of the curves. A finished run has rows of its validation, and one of its test."""

_writing = threading.Lock()


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        key: its name in ``paper.yaml``.
        title: its title.
        curve: the metric of the validation.
        figure: the metric of the test.
        runs: the runs: ``name``, ``fit`` and, if there is one, ``published``.
    """

    key: str
    title: str
    curve: str
    figure: str
    runs: list[dict[str, Any]]

    @property
    def file(self) -> Path:
        """The file of the curves."""
        return ROOT / "docs" / "results" / f"{self.key}.csv"


def tables() -> dict[str, Table]:
    """All tables, by their keys."""
    found = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return {key: Table(key, **described) for key, described in found.items()}


def command(run: dict[str, Any], seed: int) -> str:
    """The line that repeats a run."""
    return f"projunn fit {run['fit']} --seed_everything {seed}"


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
        line, environment = [sys.executable, "-m", "projunn_lightning", *words], os.environ | {"OMP_NUM_THREADS": "1"}
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
    """The rows (epoch, step, split, figure) of a run: of its validations, and of its test if it is finished."""
    rows = [row for path in sorted(home.glob("part_*/metrics.csv")) for row in read(path)]
    for split, metric in (("val", table.curve), ("test", table.figure)):
        # The last row of a step counts: a run that goes on repeats what came after its checkpoint.
        found = {int(row["step"]): row for row in rows if row.get(metric)}
        if split == "test":
            found = dict(list(found.items())[-1:])
        for step, row in sorted(found.items()):
            yield int(row["epoch"]), step, split, float(row[metric])


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
    """The lines of a table: the median of the test and its range over the seeds.

    A run that is not finished has the last figure of its validation.
    """
    yield "| run | published | measured | seeds | epochs | minutes | command |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    rows = read(table.file)
    for run in table.runs:
        own = [row for row in rows if row["run"] == run["name"]]
        last = {row["seed"]: row for row in own}.values()  # the test, or the last validation
        yield f"| {run['name']} | {run.get('published', '')} | {_measured(list(last))} | `{command(run, 0)}` |"


def _measured(last: list[dict[str, str]]) -> str:
    """The cells of the last rows of each seed: figure, seeds, epochs and minutes."""
    if not last:
        return " | ".join([""] * 4)
    figures = sorted(float(row["figure"]) for row in last)
    spread = f" ({figures[0]:.4g} to {figures[-1]:.4g})" if len(figures) > 1 else ""
    unfinished = "" if all(row["split"] == "test" for row in last) else ", not finished"
    epochs = statistics.median(int(row["epoch"]) for row in last)
    minutes = statistics.median(float(row["minutes"]) for row in last)
    return f"{statistics.median(figures):.4g}{spread}{unfinished} | {len(last)} | {epochs:.0f} | {minutes:.0f}"


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
            print(f"{table.title}\n\n" + "\n".join(markdown(table)) + "\n")
        return
    until = time.monotonic() + 60 * options.minutes
    done = {(t.key, row["run"], int(row["seed"])) for t in chosen for row in read(t.file) if row["split"] == "test"}
    missing = [
        (table, run, seed)
        for seed in range(options.seeds)
        for table in chosen
        for run in table.runs
        if (table.key, run["name"], seed) not in done
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(train, *each, options.output, until) for each in missing]:
            future.result()


if __name__ == "__main__":
    main()
