"""``projunn compare``: train several recurrent layers on one task, and put them side by side in a table."""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import statistics
import textwrap
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich import box
from rich.console import Console
from rich.table import Table

from projunn_lightning.cli.app import ProjUNNCLI, run_cli
from projunn_lightning.cli.baseline import baseline_of
from projunn_lightning.cli.board import BoardLogger
from projunn_lightning.cli.configs import find_comparison, read_config
from projunn_lightning.cli.options import options_of
from projunn_lightning.constraint import Stack, declared
from projunn_lightning.errors import ConfigError
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import ElmanRNN

SOLVED = 0.1
"""A task counts as solved when the loss is below this share of the baseline's loss."""

COLUMNS = ("rnn", "parameters", "test loss", "% of baseline", "solved at step", "steps", "ms a step", "unitarity error")
"""The columns of the table of one seed."""

SUMMARY = ("rnn", "test loss", "deviation", "% of baseline", "solved", "seconds to solve", "ms a step", COLUMNS[-1])
"""The columns of the table of several seeds."""

RUN = (*COLUMNS, "seconds to solve", "seed")
"""The columns of ``table.csv``, which has a row for each run."""


def run(arguments: list[str]) -> None:
    """Run ``projunn compare``; its ``--help`` describes the arguments.

    Raises:
        ConfigError: if the folder does not hold the task or a recurrent layer that is asked for, or if an earlier run
            in the output folder had other settings.
    """
    parser = argparse.ArgumentParser(
        prog="projunn compare",
        description="Train each recurrent layer of a folder on the folder's task, and print a table of them. A layer "
        "that is done is not trained again, and one that was interrupted goes on from its last checkpoint. --restart "
        "begins anew.",
        epilog="All other options are passed to `projunn fit`, such as --trainer.max_epochs 2.",
    )
    add_arguments(parser)
    options, fit = parser.parse_known_args(arguments)
    folder = find_comparison(options.folder)
    found = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "task")
    if not (folder / "task.yaml").is_file() or not found:
        raise ConfigError(
            f"{folder} must hold task.yaml and one YAML per recurrent layer, found {', '.join(found) or 'none'}"
        )
    rnns = found if options.rnns is None else options.rnns.split(",")
    if unknown := [rnn for rnn in rnns if rnn not in found]:
        raise ConfigError(f"{folder} has no {', '.join(unknown)}, expected some of {', '.join(found)}")
    for name in ("task", *rnns):  # a mistake in any of them is found before the first layer trains
        read_config(folder / f"{name}.yaml")
    output = options.output or Path("comparisons") / folder.name
    if options.restart:
        for rnn in rnns:
            for place in _places(rnn, options.seeds):
                _remove(output / place)
    results = {rnn: _results(rnn, options.seeds, folder, output, fit) for rnn in rnns}
    write_table(results, output)


def _results(rnn: str, seeds: int, folder: Path, output: Path, fit: list[str]) -> list[dict[str, Any]]:
    """The results of one layer for each seed; one seed is that of the task's config."""
    results = []
    for place, seed in _places(rnn, seeds).items():
        seeded = fit if seed is None else [*fit, "--seed_everything", str(seed)]
        results.append(result_of(rnn, folder, output, seeded, place) | {"seed": seed})
    return results


def _places(rnn: str, seeds: int) -> dict[Path, int | None]:
    """The folders of the runs of one layer in the output folder, each with its seed; None for the config's seed."""
    if seeds == 1:
        return {Path(rnn): None}
    return {Path(rnn, f"seed_{seed}"): seed for seed in range(seeds)}


def _remove(home: Path) -> None:
    """Remove what a run has written, but not the runs of several seeds in folders below it."""
    for path in home.glob("*"):
        if path.is_file():
            path.unlink()
        elif not path.name.startswith("seed_"):
            shutil.rmtree(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``projunn compare`` to a parser."""
    parser.add_argument(
        "folder", help="folder with task.yaml and one YAML per recurrent layer: copying_200, adding_200 or your own"
    )
    parser.add_argument("--rnns", help="comma-separated recurrent layers to run (default: all)")
    parser.add_argument("--seeds", type=_positive, default=1, help="number of seeds for each layer (default: 1)")
    parser.add_argument("--restart", action="store_true", help="remove earlier runs of these layers, and begin anew")
    parser.add_argument(
        "--output", type=Path, help="folder for logs, checkpoints and the table (default: comparisons/TASK)"
    )


def _positive(text: str) -> int:
    """A number of seeds; argparse turns the error into its own line."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, found {text}")
    return int(text)


class Progress(Callback):
    """Remembers the first validation that found the task solved, and the seconds that training steps take.

    Args:
        settings: settings of the run. They are written to ``file`` when training starts, so that a run that is refused
            leaves none.
        file: path of ``settings.json``.
    """

    def __init__(self, settings: dict[str, Any], file: Path) -> None:
        self.settings = settings
        self.file = file
        self.solved_at: int | None = None
        self.seconds: list[float] = []
        self._start = 0.0
        self._stage = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stage = stage
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
        if getattr(data, "baseline_loss", None) is None:
            raise ConfigError(f"a comparison needs data with a baseline_loss, and {type(data).__name__} has none")
        if baseline_of(pl_module, data) is None:
            raise ConfigError(
                f"a comparison needs a model whose loss can be compared with the baseline of {type(data).__name__}, "
                f"and the options of {type(pl_module).__name__} give it another loss"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(self.settings))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(time.perf_counter() - self._start)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        limit = SOLVED * trainer.datamodule.baseline_loss  # type: ignore[attr-defined]  # set by a connector
        loss = trainer.callback_metrics.get("val/loss", math.inf)
        if self.solved_at is None and not trainer.sanity_checking and loss < limit:
            self.solved_at = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        return {"solved_at": self.solved_at, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._stage == "fit":  # not when the best checkpoint is tested
            self.solved_at = state_dict["solved_at"]
            self.seconds = state_dict["seconds"]


def result_of(rnn: str, folder: Path, output: Path, fit: list[str], place: Path) -> dict[str, Any]:
    """The result of a recurrent layer: of an earlier run if there is one, or else of a run now.

    Args:
        rnn: the name of the layer.
        folder: the folder of the task's and the layer's config.
        output: the folder of all logs and results.
        fit: further arguments of ``projunn fit``.
        place: the folder of this run in the output folder.
    """
    configs = [folder / "task.yaml", folder / f"{rnn}.yaml"]
    settings = {"configs": [read_config(path) for path in configs], "fit": fit}  # without the comments of the files
    home = output / place
    begun, done, last = home / "settings.json", home / "result.json", home / "checkpoints" / "last.ckpt"
    if begun.exists() and _read(begun) != settings:
        raise ConfigError(f"{home} was begun with other settings; pass --restart to begin anew, or another --output")
    if done.exists():
        return _read(done)
    Console().print(f"{place}: {f'goes on from {last}' if last.exists() else 'begins'}", style="bold")
    result = _train(place, configs, output, fit, last if last.exists() else None, Progress(settings, begun))
    partial = done.with_suffix(".partial")  # an interruption here leaves no half of a result
    partial.write_text(json.dumps(result))
    partial.rename(done)
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read ({error}); pass --restart to begin anew") from error


def _train(
    place: Path, configs: list[Path], output: Path, fit: list[str], checkpoint: Path | None, progress: Progress
) -> dict[str, Any]:
    arguments = ["fit", *(word for path in configs for word in ("--config", str(path)))]
    logger = {"save_dir": str(output), "name": "", "version": str(place)}
    arguments += ["--trainer.logger", "TensorBoardLogger"]
    arguments += [word for name, value in logger.items() for word in (f"--trainer.logger.{name}", value)]
    arguments += fit + (["--ckpt_path", str(checkpoint)] if checkpoint else [])
    cli = run_cli(
        arguments,
        trainer_defaults={"callbacks": [progress, ModelCheckpoint(save_last=True, save_on_exception=True)]},
        save_config_kwargs={"overwrite": True},
    )
    if cli.trainer.interrupted:
        raise KeyboardInterrupt
    if "test/loss" not in cli.trainer.callback_metrics or not progress.seconds:
        raise ConfigError(
            f"{place} took no training step or logged no test/loss, and cannot be compared; look at its options"
        )
    rnn = place.parts[0]
    result = _result(rnn, cli, progress)
    numbers = {f"result/{name}": v for name, v in result.items() if isinstance(v, (int, float)) and name != "test loss"}
    for board in (each for each in cli.trainer.loggers if isinstance(each, BoardLogger)):
        board.log_metrics(numbers, cli.trainer.global_step)
        board.log_result(options_of(cli.trainer, cli.model, cli.datamodule) | {"rnn": rnn}, ["test/loss", *numbers])
    return result


def _result(rnn: str, cli: ProjUNNCLI, progress: Progress) -> dict[str, Any]:
    loss, baseline = float(cli.trainer.callback_metrics["test/loss"]), cli.datamodule.baseline_loss
    return {
        "rnn": rnn,
        "parameters": degrees_of_freedom(cli.model),
        "test loss": loss,
        "% of baseline": 100 * loss / baseline,
        "solved at step": progress.solved_at,
        "steps": cli.trainer.global_step,
        "ms a step": 1e3 * statistics.median(progress.seconds),
        "unitarity error": _unitarity_error(cli.model),
        "seconds to solve": None if progress.solved_at is None else sum(progress.seconds[: progress.solved_at]),
    }


def degrees_of_freedom(model: LightningModule) -> int:
    """The number of real numbers that a model is free to choose.

    A unitary matrix counts with the dimension of its Stiefel manifold.

    >>> from projunn_lightning import SequenceModel
    >>> [degrees_of_freedom(SequenceModel(1, 1, 8, rnn=rnn, task="regression")) for rnn in ("projunn", "exprnn")]
    [53, 53]
    """
    constrained = declared(model)
    total = 0
    for name, parameter in model.named_parameters():
        real = 2 if parameter.is_complex() else 1
        total += real * parameter.numel()
        if name in constrained or name.endswith("parametrizations.weight.original"):  # torch's own parametrization
            stacks = constrained[name].stacks if name in constrained else (Stack(),)
            for shape in (stack.matrices(parameter).shape for stack in stacks):
                n, p = shape[-2:]
                conditions = min(n, p) ** 2 if real == 2 else min(n, p) * (min(n, p) + 1) // 2  # W^H W = I
                total -= conditions * (shape.numel() // (n * p))
    return total


def _unitarity_error(model: LightningModule) -> float | None:
    rnn = getattr(model, "rnn", None)
    if not isinstance(rnn, ElmanRNN):
        return None
    rnn.eval()
    matrices = range(rnn.num_layers * (2 if rnn.bidirectional else 1))
    return max(float(unitarity_error(rnn.recurrent_weight(index).detach())) for index in matrices)


def write_table(results: dict[str, list[dict[str, Any]]], output: Path) -> None:
    """Print a row for each layer, and write a row for each run to ``table.csv`` in the output folder."""
    several = any(len(runs) > 1 for runs in results.values())
    columns = SUMMARY if several else COLUMNS
    rows = [_summary(runs) if several else runs[0] for runs in results.values()]
    # 80 columns hold all of it: the heads are broken between words, and the values are not.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        values = [_shown(row[column]) for row in rows]
        head = textwrap.fill(column, max(7, *map(len, column.split()), *map(len, values)))
        table.add_column(head, no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(row[column]) for column in columns))
    Console().print(table)
    with (output / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, RUN)
        writer.writeheader()
        writer.writerows(run for runs in results.values() for run in runs)
    Console().print(f"{output / 'table.csv'}; curves: tensorboard --logdir {output}", highlight=False)


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the losses over seeds, their standard deviation, and medians of the rest."""
    losses = [run["test loss"] for run in runs]
    solved = [run["seconds to solve"] for run in runs if run["seconds to solve"] is not None]
    errors = [run["unitarity error"] for run in runs if run["unitarity error"] is not None]
    return {
        "rnn": runs[0]["rnn"],
        "test loss": statistics.mean(losses),
        "deviation": statistics.stdev(losses),
        "% of baseline": statistics.mean(run["% of baseline"] for run in runs),
        "solved": f"{len(solved)} of {len(runs)}",
        "seconds to solve": statistics.median(solved) if solved else None,
        "ms a step": statistics.median(run["ms a step"] for run in runs),
        "unitarity error": max(errors, default=None),
    }


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
