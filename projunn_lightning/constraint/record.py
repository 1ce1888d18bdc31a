"""The record of a constraint: how a parameter is viewed as matrices."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from projunn_lightning.linalg import Matrices, matrices_of

_RECORD = "_orthogonal_parameters"


@dataclass(frozen=True)
class Constraint:
    """How a parameter is viewed as matrices.

    Attributes:
        chunks: the number of matrices stacked along dim 0.
        flatten: whether all dims but the first form one dim (a convolution's kernel becomes ``(out, rest)``).
    """

    chunks: int = 1
    flatten: bool = False

    @classmethod
    def on(cls, owner: nn.Module, chunks: int = 1) -> Constraint:
        """The constraint of a parameter of a module: the kernel of a convolution is one matrix."""
        return cls(chunks, flatten=isinstance(owner, nn.modules.conv._ConvNd))

    def matrices(self, tensor: Tensor) -> Matrices:
        """The tensor's matrices ``(*, n, p)``: a view of it where its memory layout allows one, otherwise a copy."""
        return matrices_of(tensor, self.chunks, self.flatten)


def remember(module: nn.Module, name: str, constraint: Constraint) -> None:
    """Keep the record of a constraint on the module that owns the parameter.

    It is kept there by name, and the parameter stays a plain ``nn.Parameter``: so the record survives ``deepcopy``,
    pickling and a strategy that replaces the parameter object.
    """
    module.__dict__.setdefault(_RECORD, {})[name] = constraint


def declared(module: nn.Module) -> dict[str, Constraint]:
    """The constraints declared on a module and its children, by the parameter's full name."""
    return {
        f"{prefix}.{name}" if prefix else name: constraint
        for prefix, child in module.named_modules()
        for name, constraint in getattr(child, _RECORD, {}).items()
    }
