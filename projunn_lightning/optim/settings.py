"""The settings of the method: the one place where they, their checks and their documentation stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from projunn_lightning.errors import ConfigError, near_misses, one_of
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, RetractionName, SamplerName


@dataclass(frozen=True, kw_only=True)
class ProjUNNSettings:
    """How the optimizer's update of a constrained weight is applied.

    Args:
        rank: k, the rank at which an update is taken, from 1 to the smaller side of each weight; or ``"full"``, the
            whole update by dense algebra in O(N^3), where that is affordable.
        retraction: the way back to the manifold, a name in ``functional.RETRACTIONS``. The paper's are
            ``"exponential"`` (projUNN-T) and ``"polar"`` (projUNN-D).
        sampler: how the rank-k part of an update is found, a name in ``functional.SAMPLERS``. The paper's are
            ``"lsi"`` and ``"column"``; ``"tangent"`` settles where the gradient is normal to the manifold.
        feedback: rho, the share of what rank k left out of the last updates that is added to the next one, from 0 to
            below 1. It keeps a residual as large as the weight, and wants a smaller learning rate: about (1 - rho)
            times the former in problems without noise.
        coordinates: ``"weight"``, in which the optimizer sees the weight's gradient as it is; or ``"skew"``, in which
            it sees the gradient in the Lie algebra, a skew matrix, for square weights. An optimizer that scales each
            entry, such as RMSprop or Adam, often learns faster in them.
        lr_divider: divides the update of constrained weights (the paper's separate unitary learning rate); a number, or
            a function that takes the number of a weight's updates so far to one.
        tolerance: the unitarity error to stay below; half of it triggers a re-orthonormalisation.
        seed: seeds the random sketches, which are a function of (seed, step, parameter name) alone.

    Raises:
        ConfigError: if a value has the wrong type, is unknown, is out of range, or does not go with another one.
    """

    rank: int | Literal["full"] = 1
    retraction: RetractionName = "exponential"
    sampler: SamplerName = "lsi"
    feedback: float = 0.0
    coordinates: Literal["weight", "skew"] = "weight"
    lr_divider: float | Callable[[int], float] = 1.0
    tolerance: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.rank != "full":
            _check_type("rank", self.rank, int, "a whole number or 'full'")
            if self.rank < 1:
                raise ConfigError(f"rank must be a whole number of 1 or more, or 'full', found {self.rank}")
        _check_type("seed", self.seed, int, "a whole number")
        for name in ("tolerance", "feedback"):
            _check_type(name, getattr(self, name), (int, float), "a number")
        if not 0 < self.tolerance < float("inf"):
            raise ConfigError(f"tolerance must be positive and finite, found {self.tolerance}")
        self.divider(0)
        if not 0 <= self.feedback < 1:
            raise ConfigError(f"feedback must be in [0, 1), found {self.feedback}")
        if self.feedback and self.rank == "full":
            raise ConfigError("feedback adds what rank k left out, and rank='full' leaves nothing out: set feedback=0")
        one_of("retraction", self.retraction, RETRACTIONS, ConfigError)
        one_of("sampler", self.sampler, SAMPLERS, ConfigError)
        one_of("coordinates", self.coordinates, ("weight", "skew"), ConfigError)

    def divider(self, step: int) -> float:
        """The divider of a weight's update after so many updates.

        Raises:
            ConfigError: if it is no positive number.
        """
        value = self.lr_divider(step) if callable(self.lr_divider) else self.lr_divider
        _check_type("lr_divider", value, (int, float), "a number")
        if not 0 < value < float("inf"):
            raise ConfigError(f"lr_divider must be positive and finite, found {value}")
        return value


def check_names(settings: dict[str, Any]) -> None:
    """Check that every keyword is the name of a setting.

    Raises:
        ConfigError: naming the first that is none, with near misses.
    """
    names = [field.name for field in fields(ProjUNNSettings)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"unknown setting {name!r}; near misses: {near_misses(name, names)}")


def as_patterns(parameters: object) -> list[str]:
    """The glob patterns of the argument ``parameters``: one, several or None.

    Raises:
        ConfigError: if it is anything else.
    """
    patterns = [parameters] if isinstance(parameters, str) else parameters or []
    if isinstance(patterns, list | tuple | set | frozenset) and all(isinstance(each, str) for each in patterns):
        return list(patterns)
    raise ConfigError(
        f"parameters must be a glob pattern or a list of them, such as '*.weight_hh_l*', found {parameters!r}"
    )


def _check_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{name} must be {expected}, found {value!r}")
