"""Errors of input from errors of code: the one line that the command says of the former."""

from __future__ import annotations

import dis
import sys
import traceback
from collections.abc import Iterator
from types import CodeType

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

LIBRARIES = {
    *("fsspec", "jsonargparse", "lightning", "lightning_fabric", "lightning_utilities", "numpy", "packaging"),
    *("pytorch_lightning", "rich", "tensorboard", "torch", "torchmetrics", "yaml"),
}
"""Top-level modules that check what a config passes to them."""

_COMMAND = ("projunn_lightning.cli", "projunn_lightning.compare")
_SPEAKING = (ValueError, OSError, ImportError, MisconfigurationException)  # messages that say enough without their type


def refusal(error: Exception) -> str | None:
    """What to say of an error in one line, or None where code is to blame and the traceback is wanted.

    Input is to blame if this package's own lines raised the error to say so, or if libraries alone raised it: whatever
    the type, none of the user's modules and no model, data or callback of this package was running. Memory and files
    that cannot be had are neither's mistake.
    """
    chain = list(_causes(error))
    own: set[str] = set()
    for cause in chain:
        modules = [module for module, _ in _frames(cause)]
        own |= {module for module in modules if not _is_library(module)} - {*_COMMAND}
        if modules and _is_ours(modules[-1]) and not _out_of_memory(cause):
            meant = isinstance(cause, (ValueError, ModuleNotFoundError)) and _raised_by_statement(cause)
            return str(cause) if meant and all(map(_is_ours, own)) else None
    if not all(map(_is_ours, own)):
        return None
    if "Traceback (most recent call last)" in str(error):  # of a worker process
        return None
    first = chain[-1] if own else error  # that of libraries alone wraps it to say where
    if own and not (_out_of_memory(first) or isinstance(first, OSError)):
        return None
    speaking = isinstance(first, _SPEAKING)
    return f"{_place(first, speaking)}{'' if speaking else type(first).__name__ + ': '}{' '.join(str(first).split())}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _frames(error: BaseException) -> Iterator[tuple[str, CodeType]]:
    """Module and code of each frame that the error went through, from the outermost."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield str(frame.f_globals.get("__name__", "")), frame.f_code


def _raised_by_statement(error: BaseException) -> bool:
    """Whether a line says ``raise``; otherwise Python itself did, as where a tuple has another length."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    if tb is None:
        return False
    instructions = dis.get_instructions(tb.tb_frame.f_code)
    return any(each.offset == tb.tb_lasti and each.opname == "RAISE_VARARGS" for each in instructions)


def _is_ours(module: str) -> bool:
    return module.startswith("projunn_lightning.")


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names or not top


def _out_of_memory(error: BaseException) -> bool:
    """Torch has no type of its own for this on a CPU."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in ("allocate", "Storage size calculation overflowed"))
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))


def _place(error: BaseException, speaking: bool) -> str:
    """What refused, as a prefix: the class that was being made of the config, or the module that ran if it matters."""
    frames = list(_frames(error))
    names = [code.co_qualname for _, code in frames]
    if "LightningCLI._set_seed" in names:
        return "seed_everything: "
    if any(name.startswith("_CheckpointConnector.") for name in names):
        return "ckpt_path: "
    if "LightningCLI._run_subcommand" in names:
        return "" if speaking else f"{frames[-1][0]}: "
    made = (name.removesuffix(".__init__") for name in names if name.endswith(".__init__") and "CLI" not in name)
    return next((f"{name}: " for name in made), "")
