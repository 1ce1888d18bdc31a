"""``--run``: the config and the checkpoint of a run, by its folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from projunn_lightning.cli.checkpoint import read_checkpoint
from projunn_lightning.errors import ConfigError

COMMANDS = ("validate", "test", "predict")
"""The subcommands that take ``--run``."""


class Run(argparse.Action):
    """The action of ``--run``, for the help. :func:`expanded` replaces the option before a parser sees it."""

    def __call__(self, *args: Any, **options: Any) -> None:
        raise ConfigError("--run needs the subcommand as the first argument, such as projunn test --run FOLDER")


def add_run_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--run`` to the parser of a subcommand."""
    parser.add_argument(
        "--run",
        action=Run,
        metavar="FOLDER",
        default=argparse.SUPPRESS,
        help="The folder of a run, such as lightning_logs/version_0: its config, which further options change, and its "
        "best checkpoint, or the last one if no metric was monitored.",
    )


def expanded(arguments: Sequence[str]) -> list[str]:
    """Replace ``--run FOLDER`` in the arguments of a subcommand by ``--config`` and ``--ckpt_path``.

    They come first, so that the other options are laid over the config of the run.

    Raises:
        ConfigError: if the folder has no config or no checkpoint, or does not say which checkpoint is the best.
    """
    if not arguments or arguments[0] not in COMMANDS:
        return list(arguments)
    parser = argparse.ArgumentParser(prog="projunn", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    parser.add_argument("--run", type=Path)
    found, others = parser.parse_known_args(arguments[1:])
    if found.run is None:
        return list(arguments)
    return [arguments[0], f"--config={_config_in(found.run)}", f"--ckpt_path={_checkpoint_in(found.run)}", *others]


def _config_in(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"--run {folder} is no folder; pass the folder of a run, such as lightning_logs/version_0")
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"--run {folder} has no config.yaml; pass the folder of a run that `projunn fit` has logged, such as "
            "lightning_logs/version_0, or pass --config and --ckpt_path"
        )
    return folder / "config.yaml"


def _checkpoint_in(folder: Path) -> Path:
    """The best checkpoint of a run, or the last one if the run has monitored no metric."""
    paths = sorted((folder / "checkpoints").glob("*.ckpt"))
    if not paths:
        raise ConfigError(
            f"--run {folder} has no .ckpt file in {folder / 'checkpoints'}; pass the folder of a run that "
            "`projunn fit` has trained, or pass --config and --ckpt_path"
        )
    if len(paths) == 1:
        return paths[0]
    last = max(paths, key=_progress)
    best = _best(last)
    if not best:
        return last
    if len(best) > 1:
        raise ConfigError(
            f"--run {folder} has a best checkpoint for each of several metrics: {', '.join(sorted(best))}; choose one "
            "by --ckpt_path"
        )
    (path,) = best
    if not (folder / "checkpoints" / path).is_file():
        raise ConfigError(
            f"--run {folder} has lost its best checkpoint {path}; found {', '.join(each.name for each in paths)}; "
            "choose one by --ckpt_path"
        )
    return folder / "checkpoints" / path


def _progress(path: Path) -> tuple[int, float]:
    """How far a run had come when it wrote a checkpoint: the step, and the time of the file among those of one step."""
    return _read(path)["global_step"], path.stat().st_mtime


def _best(path: Path) -> set[str]:
    """The file names of the best checkpoints that the ModelCheckpoints of a run have recorded in its last one."""
    states = _read(path).get("callbacks", {}).values()
    return {Path(state["best_model_path"]).name for state in states if _monitors(state) and state["best_model_path"]}


def _monitors(state: Any) -> bool:
    return isinstance(state, dict) and state.get("monitor") is not None and "best_model_path" in state


def _read(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(str(path))
    if checkpoint is None:
        raise ConfigError(
            f"--run cannot choose among the distributed checkpoints in {path.parent}; choose one by --ckpt_path"
        )
    return checkpoint
