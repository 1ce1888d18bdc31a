"""The settings of the method, with their checks and their documentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from projunn_lightning.constraint import Chunks, as_chunks
from projunn_lightning.errors import ConfigError, near_misses, one_of
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, RetractionName, SamplerName


@dataclass(frozen=True, kw_only=True)
class ProjUNNSettings:
    """How the optimizer's update of a constrained weight is applied.

    Args:
        rank: k, the rank at which an update is approximated, 1 or more; for a weight whose smaller side is below k, the
            smaller side is the rank. ``"full"`` takes the whole update by dense algebra in O(N^3).
        retraction: the way back to the manifold, a name in ``functional.RETRACTIONS``. The paper's retractions are
            ``"exponential"`` (projUNN-T) and ``"polar"`` (projUNN-D).
        sampler: the method that finds the rank-k part of an update, a name in ``functional.SAMPLERS``. ``"tangent"``
            settles where the gradient is normal to the manifold. The paper's samplers are ``"lsi"`` and ``"column"``.
        feedback: rho, from 0 to below 1. Rank k leaves a residual out of each update; the share rho of the residual is
            added to the next update. The residual is kept in memory and is as large as the weight. Feedback needs a
            smaller learning rate: in problems without noise, about (1 - rho) times the learning rate without it.
        coordinates: ``"weight"``: the optimizer gets the gradient of the weight as it is; or ``"skew"``: it gets the
            gradient in the Lie algebra, which is a skew-Hermitian matrix. ``"skew"`` needs square weights. An optimizer
            that scales each entry, such as RMSprop or Adam, often learns faster with it.
        lr_divider: the number by which the updates of constrained weights are divided, as the paper's separate learning
            rate of unitary weights; or a function that returns this number for the number of a weight's updates so far.
        tolerance: the bound below which the unitarity error is kept. A weight is re-orthonormalised when the error
            passes half of the tolerance.
        seed: the seed of the random sketches. A sketch depends on the seed, the step and the parameter's name only.

    Raises:
        ConfigError: if a value has the wrong type, is unknown, is out of range, or does not go with another one.
    """

    rank: int | Literal["full"] = 8
    retraction: RetractionName = "exponential"
    sampler: SamplerName = "tangent"
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
        """The divider of a weight's update after a number of updates.

        Raises:
            ConfigError: if the divider is not a positive number.
        """
        value = self.lr_divider(step) if callable(self.lr_divider) else self.lr_divider
        _check_type("lr_divider", value, (int, float), "a number")
        if not 0 < value < float("inf"):
            raise ConfigError(f"lr_divider must be positive and finite, found {value}")
        return value


def check_names(settings: dict[str, Any]) -> None:
    """Check that every keyword is the name of a setting.

    Raises:
        ConfigError: if a keyword is unknown. The message names the first one, and settings with similar names.
    """
    names = [field.name for field in fields(ProjUNNSettings)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"unknown setting {name!r}; near misses: {near_misses(name, names)}")


def as_patterns(parameters: object) -> list[str]:
    """The glob patterns in the argument ``parameters``, which may be one pattern, several patterns or None.

    Raises:
        ConfigError: if the argument is anything else.
    """
    patterns = [parameters] if isinstance(parameters, str) else parameters or []
    if isinstance(patterns, list | tuple | set | frozenset) and all(isinstance(each, str) for each in patterns):
        return list(patterns)
    raise ConfigError(
        f"parameters must be a glob pattern or a list of them, such as '*.weight_hh_l*', found {parameters!r}"
    )


def chunks_for(patterns: list[str], chunks: object) -> Chunks | None:
    """The argument ``chunks``, which says how the parameters that patterns choose are taken apart, or None.

    Raises:
        ConfigError: if there are no patterns, or if it is neither a number of matrices nor a list of row counts.
    """
    if chunks is None:
        return None
    if not patterns:
        raise ConfigError(
            f"chunks={chunks!r} is for the parameters that patterns choose, and there are no patterns: set parameters, "
            "or declare the weight by projunn_lightning.orthogonal(module, name, chunks=...)"
        )
    return as_chunks(chunks, ConfigError)


def _check_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{name} must be {expected}, found {value!r}")
