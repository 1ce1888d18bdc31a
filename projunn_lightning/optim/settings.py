"""The settings of the method: the one place where they, their checks and their documentation stand."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from projunn_lightning.errors import ConfigError, near_misses, one_of
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, RetractionName, SamplerName


@dataclass(frozen=True, kw_only=True)
class ProjUNNSettings:
    """How the optimizer's update of a constrained weight is applied.

    Args:
        rank: k, the rank at which an update is taken, from 1 to the smaller side of each weight. The paper's is 1.
        retraction: the way back to the manifold: ``"exponential"`` (projUNN-T), ``"polar"`` (projUNN-D) or
            ``"cayley"``, see :func:`projunn_lightning.functional.retract`.
        sampler: how the rank-k part of an update is found: ``"lsi"``, ``"column"``, ``"subspace"`` or ``"svd"``, see
            :func:`projunn_lightning.functional.rank_k`.
        lr_divider: divides the update of constrained weights (the paper's separate unitary learning rate).
        tolerance: the unitarity error to stay below; half of it triggers a re-orthonormalisation.
        seed: seeds the random sketches, which are a function of (seed, step, parameter name) alone.

    Raises:
        ConfigError: if a value has the wrong type, is unknown or is out of range.
    """

    rank: int = 1
    retraction: RetractionName = "exponential"
    sampler: SamplerName = "lsi"
    lr_divider: float = 1.0
    tolerance: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("rank", "seed"):
            _check_type(name, getattr(self, name), int, "a whole number")
        for name in ("lr_divider", "tolerance"):
            value = getattr(self, name)
            _check_type(name, value, (int, float), "a number")
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be positive and finite, found {value}")
        if self.rank < 1:
            raise ConfigError(f"rank must be a whole number of 1 or more, found {self.rank}")
        one_of("retraction", self.retraction, RETRACTIONS, ConfigError)
        one_of("sampler", self.sampler, SAMPLERS, ConfigError)


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
