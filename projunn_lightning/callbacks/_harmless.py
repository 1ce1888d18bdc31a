"""The border at which an error of a measurement becomes a warning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Turn an error of a measurement into a warning, because a monitor must not stop the training that it watches."""
    try:
        yield
    except Exception as error:  # of any type: matplotlib, a logger and a layer of the user's own may raise it
        rank_zero_warn(
            f"UnitarityMonitor could not measure {what}, and the training goes on without: "
            f"{type(error).__name__}: {error}"
        )
