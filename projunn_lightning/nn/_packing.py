"""Runs over sequences of different lengths, without padding.

A packed sequence holds the sequences of a batch in the order of their lengths, the longest first, and stores them step
by step. The time steps at which the same number b of sequences go on form a block ``(t, b, *)``, which is a view of its
data. A batch of sequences of one length is a single block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

Run = Callable[[Tensor, Tensor], Tensor]
"""A function of inputs ``(t, b, I)`` and an initial state ``(b, N)`` that returns all states, ``(t, b, N)``."""


def unpack(packed: PackedSequence) -> list[Tensor]:
    """The blocks of a packed sequence, in the order of time."""
    sizes, steps = packed.batch_sizes.unique_consecutive(return_counts=True)
    parts = packed.data.split((sizes * steps).tolist())
    return [part.unflatten(0, (-1, size)) for part, size in zip(parts, sizes.tolist(), strict=True)]


def pack(blocks: list[Tensor], like: PackedSequence) -> PackedSequence:
    """The packed sequence of blocks, with the lengths and the order of another one."""
    data = torch.cat([block.flatten(0, 1) for block in blocks])
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def run_forward(run: Run, blocks: list[Tensor], initial: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run from the first step of each sequence to its last.

    Args:
        run: runs over one block.
        blocks: the inputs.
        initial: the initial states, ``(1, B, N)``.

    Returns:
        The states in blocks, and the final state of each sequence, ``(1, B, N)``.
    """
    outputs, ended, state = [], [], initial
    for block in blocks:
        going = block.shape[1]
        if going < state.shape[1]:
            ended.append(state[:, going:])
            state = state[:, :going]
        outputs.append(run(block, state.squeeze(0)))
        state = outputs[-1][-1:]  # a slice, because ONNX cannot select from complex numbers
    return outputs, torch.cat([state, *reversed(ended)], 1) if ended else state


def run_backward(run: Run, blocks: list[Tensor], initial: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run from the last step of each sequence to its first; otherwise the same as :func:`run_forward`."""
    outputs, state = [], initial[:, :0]
    for block in reversed(blocks):
        begun = initial[:, state.shape[1] : block.shape[1]]  # the sequences whose last step this block holds
        states = run(block.flip(0), torch.cat([state, begun], 1).squeeze(0))
        outputs.append(states.flip(0))
        state = states[-1:]
    return outputs[::-1], state
