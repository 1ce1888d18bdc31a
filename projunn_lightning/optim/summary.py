"""The table of constrained parameters that a projector shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from projunn_lightning.constraint import Constraint


def table(parameters: Mapping[str, Tensor], constraints: Mapping[str, Constraint]) -> Iterator[str]:
    """Yield a line for each parameter, in columns: its name, its shape, and the number and shape of its matrices.

    >>> import torch
    >>> print(*table({"qkv.weight": torch.zeros(768, 512)}, {"qkv.weight": Constraint((512, 128, 128))}))
      qkv.weight  768 x 512  1 matrix of 512 x 512, 2 matrices of 128 x 512
    """
    rows = [(name, _by(parameters[name].shape), _matrices(parameters[name], constraints[name])) for name in constraints]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "".join(f"  {cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _matrices(parameter: Tensor, constraint: Constraint) -> str:
    shapes = [stack.matrices(parameter).shape for stack in constraint.stacks]
    counts = [(shape[:-2].numel(), _by(shape[-2:])) for shape in shapes]
    return ", ".join(f"{count} {'matrix' if count == 1 else 'matrices'} of {shape}" for count, shape in counts)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
