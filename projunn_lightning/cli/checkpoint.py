"""The check of ``--ckpt_path``, which is made before a run begins: a run that cannot start leaves no log folder.

The options that a user sets beside ``--ckpt_path`` are taken. The checkpoint gives the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info
from torch.optim import Optimizer

from projunn_lightning._compat import builds_its_layers_later, changes_its_state_dict, trainer_callbacks
from projunn_lightning.errors import ConfigError

Differences = dict[str, tuple[Any, Any]]
"""The value that the user has set and the value in the checkpoint, by the name of the option."""

REMEDY = "pass a .ckpt file that `projunn fit` has written, in lightning_logs/version_*/checkpoints"


def read_checkpoint(path: str) -> dict[str, Any] | None:
    """Read the checkpoint file of ``--ckpt_path`` without the values of its tensors.

    Returns:
        The checkpoint, with tensors on the meta device; None for a path that is no file of one process: a name that
        Lightning resolves, a URL, or the folder of a distributed checkpoint.

    Raises:
        ConfigError: if there is no checkpoint of Lightning at the path.
    """
    resolved_by_lightning = path.partition(":")[0] in ("best", "last", "hpc", "registry") or "://" in path
    distributed = any(Path(path, part).exists() for part in (".metadata", "checkpoint"))  # of torch, of DeepSpeed
    if resolved_by_lightning or distributed:
        return None
    if not Path(path).is_file():
        raise ConfigError(f"ckpt_path {path} is no file, and no folder of a distributed checkpoint; {REMEDY}")
    try:
        checkpoint = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # the bytes of another format can end in an error of any type
        raise ConfigError(
            f"ckpt_path {path} cannot be read: the file is damaged, has another format, or holds objects that torch "
            f"loads only with --weights_only false (PROJUNN_TRACEBACK=1 shows the reason); {REMEDY}"
        ) from error
    if not isinstance(checkpoint, dict) or not {"pytorch-lightning_version", "state_dict"} <= checkpoint.keys():
        raise ConfigError(f"ckpt_path {path} is no checkpoint of Lightning; {REMEDY}")
    return checkpoint


def check_fits(
    checkpoint: dict[str, Any], path: str, model: LightningModule, options: Differences | None = None
) -> None:
    """Check that the parameters in a checkpoint have the names and shapes of the model's.

    A model that may change its own names and shapes, or those in the checkpoint, is left to Lightning.

    Args:
        checkpoint: the checkpoint.
        path: its path.
        model: the model.
        options: the options of the model that differ from the checkpoint's.

    Raises:
        ConfigError: naming the first parameter that differs, and the options.
    """
    if not model.strict_loading or builds_its_layers_later(model) or changes_its_state_dict(model):
        return
    saved, expected = checkpoint["state_dict"], model.state_dict()
    for name in [*expected, *saved]:
        in_checkpoint, in_model = _shown(saved, name), _shown(expected, name)
        if in_checkpoint != in_model:
            causes = "".join(f"{option} is {v!r}, and {w!r} there; " for option, (v, w) in (options or {}).items())
            raise ConfigError(
                f"ckpt_path {path} is a checkpoint of another model than {type(model).__name__}: {name} "
                f"{in_checkpoint} in the checkpoint and {in_model} in the model; {causes}configure the model as in the "
                "checkpoint, or pass a checkpoint of this model"
            )


def _shown(state_dict: dict[str, Any], name: str) -> str:
    if name not in state_dict:
        return "is missing"
    return f"has the shape {tuple(getattr(state_dict[name], 'shape', ()))}"  # extra state has no shape


class Resumed(Callback):
    """The checkpoint of a run, and the options that the user has set beside it.

    The options are taken where that can be. Lightning would restore the optimizer, its schedule and EarlyStopping
    together with the options of the former run.

    Args:
        checkpoint: the checkpoint, see :func:`read_checkpoint`.
        path: the path of the checkpoint.
    """

    def __init__(self, checkpoint: dict[str, Any], path: str) -> None:
        self.checkpoint = checkpoint
        self.path = path
        self.differing: Differences = {}
        self._optimizer: dict[str, Any] = {}
        self._patience: dict[EarlyStopping, int] = {}

    def hyperparameters(self, given: Namespace) -> dict[str, Any] | None:
        """The part of a config that makes the model as in the checkpoint, where the user has set nothing else.

        Args:
            given: the options of the model that the user has set.

        Returns:
            The part of the config; None if the checkpoint does not name the model's class, or names another class.
        """
        saved = self.checkpoint.get("hyper_parameters") or {}
        if "_class_path" not in saved or locate(saved["_class_path"]) is not locate(given["class_path"]):
            return None
        options = given.get("init_args") or Namespace()
        self.differing = _differences("model", options, saved)
        others = {name: value for name, value in saved.items() if name not in options and not name.startswith("_")}
        return {"class_path": given["class_path"], "dict_kwargs": others}

    def check_training(self, given: Namespace, optimizer: Optimizer | None) -> None:
        """Check that training can go on from the checkpoint with the options that the user has set.

        Args:
            given: all options that the user has set.
            optimizer: the optimizer that was made of them; None for the optimizer of the model's own.

        Raises:
            ConfigError: if the checkpoint holds the weights only or is of another kind of optimizer, or if an option
                differs that belongs to a schedule in mid-course. The message names both values.
        """
        states = self.checkpoint.get("optimizer_states")
        if states is None:
            raise ConfigError(f"ckpt_path {self.path} holds the weights only, and fit goes on from a whole checkpoint")
        if not states or optimizer is None:
            return
        saved, fresh = states[0]["param_groups"][0], optimizer.param_groups[0]
        missing = fresh.keys() - saved.keys()
        if missing and saved.keys() - fresh.keys() - {"initial_lr"}:
            raise ConfigError(
                f"ckpt_path {self.path} holds the state of another optimizer than {type(optimizer).__name__}: it has "
                f"no {', '.join(sorted(missing))}; choose the optimizer of that run"
            )
        if "initial_lr" in saved:
            saved = saved | {"lr": saved["initial_lr"]}
        found = _differences("optimizer", _init_args(given, "optimizer"), saved)
        schedules = self.checkpoint["lr_schedulers"] if given.get("lr_scheduler") else []
        for schedule in schedules[:1]:
            set_once = {name: v for name, v in schedule.items() if isinstance(v, int | float | str)} | {
                "last_epoch": -1
            }
            bound = _differences("lr_scheduler", _init_args(given, "lr_scheduler"), set_once)
            bound |= {name: values for name, values in found.items() if name == "optimizer.lr"}
            for name, (value, before) in bound.items():
                raise ConfigError(
                    f"{name} is {value!r}, and {before!r} in ckpt_path {self.path}, whose schedule goes on; set it to "
                    f"{before!r}"
                )
        self._optimizer = {name.removeprefix("optimizer."): value for name, (value, _) in found.items()}
        self.differing |= found

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for name, (value, before) in self.differing.items():
            rank_zero_info(f"{name} is {value!r}, as set beside ckpt_path, and no longer {before!r}")
        self._patience = {each: each.patience for each in trainer_callbacks(trainer) if isinstance(each, EarlyStopping)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            group.update(self._optimizer)
        for callback, patience in self._patience.items():
            callback.patience = patience


def _differences(part: str, given: Namespace, saved: Mapping[str, Any]) -> Differences:
    """The options of a part of the config that the user has set and that a checkpoint holds with another value."""
    options = given.as_dict()
    both = {f"{part}.{name}": (options[name], saved[name]) for name in options if name in saved}
    return {name: (value, before) for name, (value, before) in both.items() if value != before}


def _init_args(given: Namespace, part: str) -> Namespace:
    return (given.get(part) or Namespace()).get("init_args") or Namespace()
