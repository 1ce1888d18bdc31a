"""Checks of arguments that several parts make alike."""

from __future__ import annotations


def at_least(minimum: int, **values: int) -> None:
    """Raise a ValueError that names the first value below the minimum."""
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} must be {minimum} or more, found {value}")
