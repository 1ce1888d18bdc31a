"""The errors that mean "this input cannot be used", and the argument checks that raise them.

Every refusal that this package raises on purpose is a :class:`ProjUNNError`. Any other exception is a bug.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from importlib import import_module
from typing import Any


class ProjUNNError(ValueError):
    """An input cannot be used. The message names it, what was found, what was expected and the remedy."""


class ConstraintError(ProjUNNError):
    """A parameter cannot be constrained as asked."""


class ConfigError(ProjUNNError):
    """A setting, an option of the command or a config file cannot be used."""


def at_least(minimum: int, **values: int) -> None:
    """Check that each value is at least ``minimum`` and fits into torch's 64-bit integers.

    Raises:
        ProjUNNError: naming the first value that does not.

    >>> at_least(1, hidden_size=0)
    Traceback (most recent call last):
    projunn_lightning.errors.ProjUNNError: hidden_size must be 1 or more, found 0
    """
    not_none(**values)
    for name, value in values.items():
        if value < minimum:
            raise ProjUNNError(f"{name} must be {minimum} or more, found {value}")
        if value >= 2**63:
            raise ProjUNNError(f"{name} must be below 2**63, found {value}")


def not_none(**values: Any) -> None:
    """Check that no value is None, because a YAML config may say null for any option.

    Raises:
        ProjUNNError: naming the first value that is None.
    """
    for name, value in values.items():
        if value is None:
            raise ProjUNNError(f"{name} must have a value, found null; leave it out for its default")


def probability(**values: float) -> None:
    """Check that each value is a probability below 1.

    Raises:
        ProjUNNError: naming the first value outside [0, 1).
    """
    not_none(**values)
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ProjUNNError(f"{name} must be in [0, 1), found {value}")


def non_negative(**values: float) -> None:
    """Check that each value is a finite number that is not negative.

    Raises:
        ProjUNNError: naming the first value that is negative, infinite or NaN.
    """
    not_none(**values)
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ProjUNNError(f"{name} must be a finite number of 0 or more, found {value}")


def one_of(name: str, value: object, choices: Iterable[str], error: type[ProjUNNError] = ProjUNNError) -> None:
    """Check that a value is one of the choices.

    Raises:
        ProjUNNError: naming the value and all choices; a subclass of it where ``error`` says so.

    >>> one_of("task", "regresion", ["classification", "regression"])
    Traceback (most recent call last):
    projunn_lightning.errors.ProjUNNError: unknown task 'regresion', expected one of classification, regression
    """
    choices = list(choices)
    if value not in choices:
        raise error(f"unknown {name} {value!r}, expected one of {', '.join(choices)}")


def near_misses(name: str, names: Iterable[str]) -> str:
    """The names that resemble ``name``, for the end of a message; all names if none does.

    >>> near_misses("rnk", ["rank", "sampler"])
    'rank'
    """
    names = list(names)
    return ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.6) or names)


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """The pair (height, width). One number stands for both.

    Raises:
        ProjUNNError: if the value is a sequence that has not two numbers.

    >>> pair(3)
    (3, 3)
    """
    if isinstance(value, int):
        return (value, value)
    if len(value) != 2:
        raise ProjUNNError(f"height and width must be two numbers, or one for both, found {value}")
    return (value[0], value[1])


def import_extra(module: str) -> Any:
    """Import a module that belongs to the optional extra ``images``.

    Raises:
        ProjUNNError: if it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ProjUNNError(
            f"{module} is not installed, and images need it: pip install -c constraints.txt -e '.[images]'"
        ) from error
