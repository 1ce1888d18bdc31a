"""What is passed as ``--ckpt_path``, looked at before a run begins: no log folder is made for one that cannot start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from projunn_lightning.callbacks.projunn import builds_its_layers_later
from projunn_lightning.errors import ProjUNNError

_REMEDY = "pass a .ckpt file that `projunn fit` has written, in lightning_logs/version_*/checkpoints"
_NAMES = ("best", "last", "hpc", "registry")
"""What Lightning finds by itself, as it does what has a protocol (``s3://...``)."""


def read_checkpoint(path: str | None) -> dict[str, Any] | None:
    """A checkpoint without the values of its tensors; None for what is left to Lightning to find or to read.

    A folder is taken for a distributed checkpoint if it looks like one.

    Raises:
        ValueError: if there is no checkpoint of Lightning at the path; it says what there is.
    """
    if not path or path in _NAMES or path.startswith("registry:") or "://" in path:
        return None
    file = Path(path)
    if file.is_dir():
        if not any((file / part).exists() for part in (".metadata", "meta.pt", "checkpoint")):
            raise ProjUNNError(
                f"ckpt_path {path} is a folder, and no distributed checkpoint: .metadata is missing; {_REMEDY}"
            )
        return None
    if not file.is_file():
        raise ProjUNNError(f"ckpt_path {path!r} does not exist; {_REMEDY}")
    found = _loaded(file)
    kind = f"a {type(found).__name__}"
    if isinstance(found, dict):
        if "pytorch-lightning_version" in found and isinstance(found.get("state_dict"), dict):
            return found
        kind = f"a dict of {', '.join(map(str, list(found)[:3])) or 'nothing'}{' ...' if len(found) > 3 else ''}"
    raise ProjUNNError(
        f"ckpt_path {path} holds {kind}, expected a checkpoint of Lightning with its state_dict; {_REMEDY}"
    )


def _loaded(file: Path) -> Any:
    try:
        return torch.load(file, map_location="meta", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # bytes of another format can end in any error
        if unknown := re.search(r"Unsupported global: GLOBAL ([\w.]+\.\w+) was", str(error)):
            raise ProjUNNError(
                f"ckpt_path {file} holds an object of {unknown[1]}, which torch does not load unasked: it could run "
                f"code; {_REMEDY}"
            ) from None
        raise ProjUNNError(
            f"ckpt_path {file}, a file of {file.stat().st_size} bytes, is no checkpoint that torch can read: it is "
            f"truncated or of another format; {_REMEDY}"
        ) from None


def check_fits(checkpoint: dict[str, Any], path: str, model: LightningModule) -> None:
    """Raise a ValueError unless names and shapes in the checkpoint are the model's.

    A model that changes either as it is set up or loaded is left to Lightning.
    """
    changed = any(is_overridden(hook, model, LightningModule) for hook in ("on_load_checkpoint", "load_state_dict"))
    changed |= any(module._load_state_dict_pre_hooks for module in model.modules())  # those of lazy layers among them
    if changed or not model.strict_loading or builds_its_layers_later(model):
        return
    saved = {name: tuple(getattr(value, "shape", ())) for name, value in checkpoint["state_dict"].items()}
    expected = {name: tuple(getattr(value, "shape", ())) for name, value in model.state_dict().items()}
    for name in [*expected, *saved]:
        if saved.get(name) != expected.get(name):
            raise ProjUNNError(
                f"ckpt_path {path} is of another model than {type(model).__name__}: {name} is "
                f"{_shown(saved, name)} in the checkpoint and {_shown(expected, name)} in the model; configure the "
                "model as the checkpoint's, or pass one of this model's"
            )


def _shown(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return f"of shape {shapes[name]}" if name in shapes else "not"
