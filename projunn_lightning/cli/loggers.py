"""Where loggers write, and the folder that belongs to a run, whichever logger it has."""

from __future__ import annotations

import inspect
import os
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger


def needs_folder(kind: object) -> bool:
    """Whether a class is a logger that must be told where to write, by its argument ``save_dir``."""
    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        return False
    argument = inspect.signature(kind).parameters.get("save_dir")
    return argument is not None and argument.default is inspect.Parameter.empty


def place_loggers(trainer: Namespace, given: Namespace) -> None:
    """Let loggers that are told no folder write below ``default_root_dir``, as the default logger does.

    MLflow gets a database there. It has given up its files, which cannot hold metrics such as ``unitarity_error`` and
    ``unitarity_error/rnn`` beside one another.

    Args:
        trainer: the part of the config that makes the Trainer. It is changed.
        given: the part of it that the user has set.
    """
    root = trainer.get("default_root_dir") or "."
    for options, chosen in zip(_options(trainer.get("logger")), _options(given.get("logger")), strict=True):
        if "save_dir" in options and "save_dir" not in chosen:
            options["save_dir"] = os.path.normpath(os.path.join(root, options["save_dir"]))
            if options.get("tracking_uri", "") is None:
                options["tracking_uri"] = f"sqlite:///{os.path.join(root, 'mlflow.db')}"


def _options(loggers: Any) -> list[Namespace]:
    """The options of one logger or several. False, True and None have none."""
    listed = loggers if isinstance(loggers, list) else [loggers]
    return [each.get("init_args") or Namespace() if isinstance(each, Namespace) else Namespace() for each in listed]


def run_folder(trainer: Trainer) -> str:
    """The folder of the run, in which Lightning makes the folder ``checkpoints``.

    Lightning's ``log_dir`` is this folder for two loggers, and the folder of all runs for the others.
    """
    logger = trainer.loggers[0]
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        return str(trainer.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return os.path.join(logger.save_dir or trainer.default_root_dir, str(logger.name), version)
