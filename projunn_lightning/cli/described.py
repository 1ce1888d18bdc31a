"""A file of predictions in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def predictions_in(path: Path) -> str:
    """What a file of predictions holds and how it is read, such as ``a tensor (64, 7) of int64; torch.load reads it``.

    The values stay on the disk.
    """
    return f"{described(torch.load(path, mmap=True, weights_only=True))}; torch.load reads it"


def described(tree: Any) -> str:
    """The keys, shapes and types of nested dicts, tuples and lists of tensors.

    >>> described({"class": torch.zeros(3, dtype=torch.int64), "logits": torch.zeros(3, 10)})
    'a dict of class: a tensor (3,) of int64, logits: a tensor (3, 10) of float32'
    """
    if isinstance(tree, Tensor):
        return f"a tensor {tuple(tree.shape)} of {str(tree.dtype).removeprefix('torch.')}"
    if isinstance(tree, Mapping):
        return f"a dict of {', '.join(f'{key}: {described(value)}' for key, value in tree.items())}"
    return f"a {type(tree).__name__} of {', '.join(map(described, tree))}"
