"""Checks and readings of arguments that several parts make alike."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any


def at_least(minimum: int, **values: int) -> None:
    """Raise a ValueError that names the first value below the minimum, or beyond torch's integers."""
    given(**values)
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} must be {minimum} or more, found {value}")
        if value >= 2**63:
            raise ValueError(f"{name} must be below 2**63, found {value}")


def given(**values: Any) -> None:
    """Raise a ValueError that names the first value that is None: a config may say null for anything."""
    for name, value in values.items():
        if value is None:
            raise ValueError(f"{name} must have a value, found null; leave it out for its default")


def fraction(**values: float) -> None:
    """Raise a ValueError that names the first value that is not from 0 to below 1."""
    given(**values)
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), found {value}")


def finite(**values: float) -> None:
    """Raise a ValueError that names the first value that is negative, infinite or NaN."""
    given(**values)
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of 0 or more, found {value}")


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, where one number stands for both."""
    if isinstance(value, int):
        return (value, value)
    if len(value) != 2:
        raise ValueError(f"height and width must be two numbers, or one for both, found {value}")
    return (value[0], value[1])


def optional(module: str) -> Any:
    """Import a module of the optional extra ``images``, or raise a ModuleNotFoundError that says how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} is not installed, and images need it: pip install -c constraints.txt -e '.[images]'"
        ) from error
