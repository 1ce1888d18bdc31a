"""Random numbers that are a function of a key and not of a shared generator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

Generators = Generator | Sequence[Generator] | None
"""One generator, one generator for each index of the first dimension, or None for torch's default generator."""


def seed_for(key: str) -> int:
    """The seed of a key. It is the same in every process and run, and unrelated to the seeds of other keys."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(key: str, device: torch.device | str = "cpu") -> Generator:
    """A new generator on a device, seeded by a key as in :func:`seed_for`."""
    return Generator(device).manual_seed(seed_for(key))


def draw_(empty: Tensor, method: Callable[..., Tensor], generator: Generators) -> Tensor:
    """Fill a tensor in place by a method such as ``Tensor.normal_``, and return it.

    Args:
        empty: the tensor.
        method: the method. It must take the argument ``generator``.
        generator: the generator or generators. If there are several, each fills one index of the first dimension.
    """
    if isinstance(generator, Sequence):
        for part, own in zip(empty, generator, strict=True):
            method(part, generator=own)
    else:
        method(empty, generator=generator)
    return empty
