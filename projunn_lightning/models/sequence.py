"""A LightningModule for sequence tasks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning.constraint import Init
from projunn_lightning.errors import ProjUNNError, not_none
from projunn_lightning.functional.recurrence import Nonlinearity
from projunn_lightning.models.supervised import Supervised, cross_entropy
from projunn_lightning.nn.rnns import Cell, make_rnn


class SequenceModel(Supervised):
    """A recurrent network with a linear read-out, trained on pairs (input sequence, target).

    Inputs are ``(B, T, input_size)``, or integers ``(B, T)`` below ``input_size`` that are taken one-hot. Outputs are
    ``(B, T, output_size)``, or ``(B, output_size)`` where only the last step is read. Targets are integers ``(B, T)``
    or ``(B)`` for classification (cross-entropy) and shaped as the outputs for regression (mean squared error).
    It logs ``train/``, ``val/`` and ``test/`` ``loss`` and ``accuracy`` or ``mae``. Without an optimizer from the
    command line it trains by RMSprop.

    Args:
        input_size: features of an input, or different integers.
        output_size: classes, or features of a target.
        hidden_size: width of the state.
        num_layers: layers of the RNN.
        task: ``"classification"`` or ``"regression"``.
        output: ``"sequence"`` for an output at every step, ``"last"`` for one at the end.
        cell: of the recurrent network: ``"projunn"``, or a rival to compare it with, see
            :func:`~projunn_lightning.nn.make_rnn`.
        nonlinearity: ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``; None for the cell's own.
        init: of the recurrent weights, see :func:`~projunn_lightning.orthogonal`.
        capacity: layers of the cell ``eunn``, reflections of ``ornn``, period of ``dtriv``; None for the cell's own.
        dropout: between the layers of the RNN.
        complex: whether the state is complex and the weights unitary; the read-out sees real and imaginary parts.
        ignore_index: a class left out of the accuracy (not of the loss), such as the blank of the copying task.
        learning_rate: of the default optimizer, RMSprop.

    Raises:
        ValueError: if a size or option is out of range, or, as it runs, if a batch does not fit the sizes.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 128,
        num_layers: int = 1,
        *,
        task: Literal["classification", "regression"] = "classification",
        output: Literal["sequence", "last"] = "sequence",
        cell: Cell = "projunn",
        nonlinearity: Nonlinearity | None = None,
        init: Init = "henaff",
        capacity: int | None = None,
        dropout: float = 0.0,
        complex: bool = False,
        ignore_index: int | None = None,
        learning_rate: float = 1e-3,
    ) -> None:
        _check_choices(task, output, output_size)
        super().__init__(learning_rate, output_size if task == "classification" else None, ignore_index)
        self.save_hyperparameters()
        self.input_size = input_size
        self.task = task
        self.output = output
        self.rnn = make_rnn(
            cell,
            input_size,
            hidden_size,
            num_layers,
            nonlinearity=nonlinearity,
            init=init,
            capacity=capacity,
            dropout=dropout,
            dtype=torch.complex64 if complex else torch.float32,
        )
        self.readout = nn.Linear(2 * hidden_size if complex else hidden_size, output_size)
        nn.init.kaiming_normal_(self.readout.weight, nonlinearity="linear")
        nn.init.zeros_(self.readout.bias)

    def forward(self, input: Tensor) -> Tensor:
        if not (input.is_floating_point() or input.is_complex()):
            input = self._one_hot(input)
        states, _ = self.rnn(input)
        if states.is_complex():
            states = torch.view_as_real(states).flatten(-2)
        if self.output == "last":
            states = states[:, -1]
        return self.readout(states)

    def _one_hot(self, input: Tensor) -> Tensor:
        try:
            return F.one_hot(input.long(), self.input_size).to(self.readout.weight.dtype)
        except RuntimeError as error:
            raise ProjUNNError(
                f"an input is no integer from 0 to input_size - 1 = {self.input_size - 1}: {error}"
            ) from None

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over all steps, or mean squared error."""
        expected = output.shape if self.task == "regression" else output.shape[:-1]
        if target.shape != expected:
            raise ProjUNNError(
                f"a {self.task} target must have shape {tuple(expected)} for output={self.output!r} and "
                f"output_size={output.shape[-1]}, found {tuple(target.shape)}"
            )
        if self.task == "regression":
            return F.mse_loss(output, target)
        return cross_entropy(output, target, "output_size")


def _check_choices(task: str, output: str, output_size: int) -> None:
    if task not in ("classification", "regression"):
        raise ProjUNNError(f"unknown task {task!r}, expected classification or regression")
    if output not in ("sequence", "last"):
        raise ProjUNNError(f"unknown output {output!r}, expected sequence or last")
    fewest = 2 if task == "classification" else 1
    not_none(output_size=output_size)
    if output_size < fewest:
        raise ProjUNNError(f"output_size must be {fewest} or more for {task}, found {output_size}")
