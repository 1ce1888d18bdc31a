"""Random numbers as a function of a name, and not of a running generator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

Generators = Generator | Sequence[Generator] | None
"""One source of random numbers, or one for each part along the first dimension, or torch's default one."""


def seed_for(key: str) -> int:
    """A seed for a key: the same in every process and run, and unrelated to the seeds of other keys."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(key: str, device: torch.device | str = "cpu") -> Generator:
    """A generator seeded by a key, see :func:`seed_for`."""
    return Generator(device).manual_seed(seed_for(key))


def draw_(empty: Tensor, method: Callable[..., Tensor], generator: Generators) -> Tensor:
    """Fill a tensor by a method such as ``Tensor.normal_``, in place.

    Args:
        empty: the tensor.
        method: the method; it takes ``generator``.
        generator: where there are several, each part along the first dimension is drawn by its own.
    """
    if isinstance(generator, Sequence):
        for part, own in zip(empty, generator, strict=True):
            method(part, generator=own)
    else:
        method(empty, generator=generator)
    return empty
