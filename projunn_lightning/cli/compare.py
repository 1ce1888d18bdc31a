"""``projunn compare``: train several recurrent cells on one task and put them side by side."""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich import box
from rich.console import Console
from rich.table import Table

from projunn_lightning.cli.config_file import check_config
from projunn_lightning.cli.configs import find_comparison
from projunn_lightning.constraint import declared
from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import ElmanRNN

SOLVED = 0.1
"""The share of the baseline's loss below which a task counts as solved."""

COLUMNS = (
    "cell",
    "parameters",
    "test loss",
    "% of baseline",
    "solved at step",
    "steps",
    "ms a step",
    "unitarity error",
)


class Progress(Callback):
    """Remembers the first validation that found the task solved, and how long training steps take.

    Args:
        settings: of the run; they are written to the file as training begins, not for a run that is refused.
        file: where to.
    """

    def __init__(self, settings: dict[str, Any], file: Path) -> None:
        self.settings = settings
        self.file = file
        self.solved_at: int | None = None
        self.seconds: list[float] = []
        self._start = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
        if not hasattr(data, "baseline_loss"):
            raise ProjUNNError(f"a comparison needs data with a baseline_loss, which {type(data).__name__} has not")

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
        self.solved_at = state_dict["solved_at"]
        self.seconds = state_dict["seconds"]


def compare(arguments: list[str]) -> None:
    """The command line of ``projunn compare``; see its ``--help``.

    Raises:
        ValueError: if the folder holds no such task or cells, or an earlier run in the output had other settings.
    """
    parser = argparse.ArgumentParser(
        prog="projunn compare",
        description="Train each cell of a folder on its task and print a table of them. Cells that are done are not "
        "run again, and one that was interrupted goes on from its last checkpoint.",
        epilog="All other options go to `projunn fit`, such as --trainer.max_epochs 2.",
    )
    add_arguments(parser)
    options, fit = parser.parse_known_args(arguments)
    options.folder = find_comparison(options.folder)
    found = sorted(path.stem for path in options.folder.glob("*.yaml") if path.stem != "task")
    if not (options.folder / "task.yaml").is_file() or not found:
        raise ProjUNNError(f"{options.folder} must hold task.yaml and a YAML of each cell, found {found or 'none'}")
    cells = found if options.cells is None else options.cells.split(",")
    if unknown := [cell for cell in cells if cell not in found]:
        raise ProjUNNError(f"{options.folder} has no cell {', '.join(unknown)}, expected some of {', '.join(found)}")
    for name in ("task", *cells):  # all before the first of them trains
        check_config(options.folder / f"{name}.yaml")
    output = options.output or Path("comparisons") / options.folder.name
    results = [result_of(cell, options.folder, output, fit) for cell in cells]
    write_table(results, output)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``projunn compare`` to a parser."""
    parser.add_argument("folder", help="of task.yaml and a YAML of each cell: copying_200, adding_200 or your own")
    parser.add_argument("--cells", help="which of them, separated by commas (all)")
    parser.add_argument("--output", type=Path, help="folder of logs, checkpoints and the table (comparisons/TASK)")


def result_of(cell: str, folder: Path, output: Path, fit: list[str]) -> dict[str, Any]:
    """The row of a cell: of an earlier run where there is one, otherwise trained now."""
    configs = [folder / "task.yaml", folder / f"{cell}.yaml"]
    settings = {"configs": [yaml.safe_load(path.read_text()) for path in configs], "fit": fit}  # not their comments
    home = output / cell
    begun, done, last = home / "settings.json", home / "result.json", home / "checkpoints" / "last.ckpt"
    if begun.exists() and _read(begun) != settings:
        raise ProjUNNError(f"{home} was begun with other settings; remove it, or pass another --output")
    if done.exists():
        return _read(done)
    Console().print(f"{cell}: {'goes on from ' + str(last) if last.exists() else 'begins'}", style="bold")
    result = _trained(cell, configs, output, fit, last if last.exists() else None, Progress(settings, begun))
    partial = done.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.rename(done)
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ProjUNNError(f"{path} cannot be read ({error}); remove {path.parent} to begin anew") from error


def _trained(
    cell: str, configs: list[Path], output: Path, fit: list[str], checkpoint: Path | None, progress: Progress
) -> dict[str, Any]:
    from projunn_lightning.cli.app import run_cli  # the command imports this module

    arguments = ["fit", *(word for path in configs for word in ("--config", str(path)))]
    logger = {"save_dir": str(output), "name": "", "version": cell, "default_hp_metric": "false"}
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
        raise ProjUNNError(
            f"{cell} took no training step or logged no test/loss, and cannot be compared: see its options"
        )
    loss, baseline = float(cli.trainer.callback_metrics["test/loss"]), cli.datamodule.baseline_loss
    result = dict.fromkeys(COLUMNS) | {
        "cell": cell,
        "parameters": degrees_of_freedom(cli.model),
        "test loss": loss,
        "% of baseline": 100 * loss / baseline,
        "solved at step": progress.solved_at,
        "steps": cli.trainer.global_step,
        "ms a step": 1e3 * statistics.median(progress.seconds),
        "unitarity error": _unitarity_error(cli.model),
    }
    if isinstance(cli.trainer.logger, TensorBoardLogger):
        metrics = {name: value for name, value in result.items() if isinstance(value, (int, float))}
        options = {name: value for name, value in cli.model.hparams.items() if not name.startswith("_")}
        options |= {"cell": cell, "learning_rate": cli.trainer.optimizers[0].param_groups[0]["lr"]}
        cli.trainer.logger.log_hyperparams(options, metrics)
        cli.trainer.logger.save()
    return result


def degrees_of_freedom(model: LightningModule) -> int:
    """Real numbers that a model is free to choose: of a unitary matrix, the dimension of its Stiefel manifold.

    >>> from projunn_lightning import SequenceModel
    >>> [degrees_of_freedom(SequenceModel(1, 1, 8, rnn=rnn, task="regression")) for rnn in ("projunn", "exprnn")]
    [53, 53]
    """
    constrained = declared(model)
    total = 0
    for name, parameter in model.named_parameters():
        real = 2 if parameter.is_complex() else 1
        free = real * parameter.numel()
        if name in constrained or name.endswith("parametrizations.weight.original"):  # torch's own
            matrices = constrained[name].matrices(parameter) if name in constrained else parameter
            n, p = matrices.shape[-2:]
            each = min(n, p) ** 2 if real == 2 else min(n, p) * (min(n, p) + 1) // 2  # conditions of W^H W = I
            free -= each * (parameter.numel() // (n * p))
        total += free
    return total


def _unitarity_error(model: LightningModule) -> float | None:
    rnn = getattr(model, "rnn", None)
    if not isinstance(rnn, ElmanRNN):
        return None
    rnn.eval()
    return max(float(unitarity_error(rnn.recurrent_weight(layer).detach())) for layer in range(rnn.num_layers))


def write_table(results: list[dict[str, Any]], output: Path) -> None:
    """Print the rows and write them to ``table.csv``."""
    table = Table(box=box.SIMPLE, padding=(0, 0, 0, 1))
    for column in COLUMNS:
        cells = [_shown(result[column]) for result in results]
        table.add_column(column, min_width=max(map(len, column.split() + cells)))  # whole words in 80 characters
    for result in results:
        table.add_row(*(_shown(result[column]) for column in COLUMNS))
    Console().print(table)
    with (output / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(results)
    Console().print(f"{output / 'table.csv'}; curves: tensorboard --logdir {output}", highlight=False)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
