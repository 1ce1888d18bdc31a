"""The check of ``--ckpt_path``, which is made before a run begins: a run that cannot start leaves no log folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from projunn_lightning._compat import builds_its_layers_later, changes_its_state_dict
from projunn_lightning.errors import ConfigError

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


def check_fits(checkpoint: dict[str, Any], path: str, model: LightningModule) -> None:
    """Check that the parameters in a checkpoint have the names and shapes of the model's.

    A model that may change its own names and shapes, or those in the checkpoint, is left to Lightning.

    Raises:
        ConfigError: naming the first parameter that differs.
    """
    if not model.strict_loading or builds_its_layers_later(model) or changes_its_state_dict(model):
        return
    saved, expected = checkpoint["state_dict"], model.state_dict()
    for name in [*expected, *saved]:
        in_checkpoint, in_model = _shown(saved, name), _shown(expected, name)
        if in_checkpoint != in_model:
            raise ConfigError(
                f"ckpt_path {path} is a checkpoint of another model than {type(model).__name__}: {name} "
                f"{in_checkpoint} in the checkpoint and {in_model} in the model; configure the model as in the "
                "checkpoint, or pass a checkpoint of this model"
            )


def _shown(state_dict: dict[str, Any], name: str) -> str:
    if name not in state_dict:
        return "is missing"
    return f"has the shape {tuple(getattr(state_dict[name], 'shape', ()))}"  # extra state has no shape
