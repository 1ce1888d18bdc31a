"""What is known of the weights of torch's own modules."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from projunn_lightning.constraint.record import Chunks, Constraint
from projunn_lightning.errors import ConstraintError, ProjUNNError

# The stacked weights: (module, parameter, number of matrices along dim 0).
_STACKED: tuple[tuple[type[nn.Module], str, int], ...] = (
    (nn.LSTM, "weight_[ih]h_l*", 4),
    (nn.LSTMCell, "weight_[ih]h", 4),
    (nn.GRU, "weight_[ih]h_l*", 3),
    (nn.GRUCell, "weight_[ih]h", 3),
    (nn.MultiheadAttention, "in_proj_weight", 3),
)


def constraint_on(owner: nn.Module, name: str, chunks: int | Sequence[int] | None = None) -> Constraint:
    """The constraint of a parameter of a module.

    The kernel of a convolution is a matrix ``(out, rest)``.

    Args:
        owner: the module that owns the parameter.
        name: the name of the parameter in the module.
        chunks: the matrices stacked along dim 0, see :func:`as_chunks`; None for one matrix for each gate of an
            ``nn.LSTM`` or ``nn.GRU`` and their cells, each projection of an ``nn.MultiheadAttention``, each group of a
            convolution, and otherwise one matrix.

    Raises:
        ConstraintError: if ``chunks`` is anything else.
    """
    return Constraint(
        _known_chunks(owner, name) if chunks is None else as_chunks(chunks),
        flatten=isinstance(owner, nn.modules.conv._ConvNd),
    )


def as_chunks(chunks: object, error: type[ProjUNNError] = ConstraintError) -> Chunks:
    """The argument ``chunks``: a number of equal matrices, or a list of the numbers of rows of each matrix.

    Raises:
        ProjUNNError: of the class ``error``, if it is anything else.

    >>> as_chunks([512, 128, 128])
    (512, 128, 128)
    """
    counts = [chunks] if isinstance(chunks, int) else chunks
    if isinstance(counts, list | tuple) and counts and all(map(_is_count, counts)):
        return chunks if isinstance(chunks, int) else tuple(counts)
    raise error(
        "chunks must be the number of matrices that are stacked along dim 0, such as 3, or a list of the number of "
        f"rows of each, such as [512, 128, 128], found {chunks!r}"
    )


def refuse_renormalised(name: str, owner: nn.Module) -> None:
    """Check that a module does not rescale its weight in each forward pass, as an embedding with ``max_norm`` does.

    Args:
        name: the full name of the weight, for the message.
        owner: the module that owns the weight.

    Raises:
        ConstraintError: if it does.
    """
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) and owner.max_norm is not None:
        raise ConstraintError(
            f"{name} belongs to an {type(owner).__name__} with max_norm={owner.max_norm}, which shortens rows of the "
            "weight in each forward pass, so that the weight would not stay orthogonal: set max_norm to None, or leave "
            "the weight out of what is constrained"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _known_chunks(owner: nn.Module, name: str) -> int:
    if isinstance(owner, nn.modules.conv._ConvNd):
        return owner.groups
    return next((c for kind, glob, c in _STACKED if isinstance(owner, kind) and fnmatchcase(name, glob)), 1)
