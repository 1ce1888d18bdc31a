"""Random numbers as a function of a name, and not of a running generator."""

from __future__ import annotations

import hashlib

import torch
from torch import Generator


def generator_for(key: str, device: torch.device | str = "cpu") -> Generator:
    """A generator seeded by the key: the same in every process and run, and unrelated to those of other keys."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
