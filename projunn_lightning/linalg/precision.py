"""Full precision for the products of the method, whatever the user's switches say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

_REDUCED = ("tf32", "bf16")  # values of fp32_precision under which products of float32 round their inputs


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in full precision: without autocast, and without TF32 or bfloat16 in products of float32.

    With them, rounding errors of 1e-3 would take weights off the manifold, and no correction could bring them back.
    The switches (``torch.autocast``, ``torch.set_float32_matmul_precision``, and ``fp32_precision`` of the backends)
    have their former values afterwards. It is a context manager and a decorator.

    >>> with torch.autocast("cpu"), full_precision():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    with ExitStack() as stack:
        for device in _device_types():
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_exact_products())
        yield


@contextmanager
def _exact_products() -> Iterator[None]:
    switches = _switches()
    try:
        for switch, _ in switches:
            switch("ieee")
        yield
    finally:
        for switch, value in switches:
            switch(value)


def _switches() -> list[tuple[Callable[[str], None], str]]:
    """The switches that reduce the precision of products now, as functions that set them, and their values."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    reduced = [backend for backend in backends if backend.fp32_precision in _REDUCED]
    return [(partial(setattr, backend, "fp32_precision"), backend.fp32_precision) for backend in reduced]


def _device_types() -> list[str]:
    accelerator = torch.accelerator.current_accelerator()
    return ["cpu"] if accelerator is None else ["cpu", accelerator.type]
