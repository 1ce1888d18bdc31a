"""The products of a large matrix with thin factors and the low-rank change: as BLAS is called at first, and here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.race import Contestants, Race, race
from projunn_lightning.linalg import Dense

WIDTHS = (1, 2, 4, 8, 16)
"""The numbers of columns of the thin factors."""


def products(device: str) -> list[Race]:
    """One race for each size and dtype, with the time of a bare ``W.add_`` as the reference."""
    cases = [(2048, torch.float32), (4096, torch.float32), (2048, torch.complex64)]
    return [race_of(size, dtype, device) for size, dtype in cases]


def race_of(size: int, dtype: torch.dtype, device: str) -> Race:
    w, other = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    contestants: Contestants = {"W.add_": lambda: w.add_(other, alpha=1e-6)}
    for width in WIDTHS:
        contestants |= dict(_contestants(w, torch.empty_like(w), width))
    return race(f"thin products, N = {size}, {dtype}", contestants, reference="W.add_")


def _contestants(w: Tensor, out: Tensor, width: int) -> Iterator[tuple[str, Callable[[], object]]]:
    left, right = (torch.randn(len(w), width, dtype=w.dtype, device=w.device) for _ in range(2))
    held, target = Dense(w), Dense(out)
    yield f"W x, {width}: W @ x", lambda: w @ right
    yield f"W x, {width}: here", lambda: held.matmul(right)
    yield f"W^H x, {width}: W.mH @ x", lambda: w.mH @ left
    yield f"W^H x, {width}: here", lambda: held.mH.matmul(left)
    yield f"W + L R^H, {width}: addmm", lambda: torch.addmm(w, left, right.mH, out=out)
    yield f"W + L R^H, {width}: here", lambda: held.add_product(left, right, out=target)
