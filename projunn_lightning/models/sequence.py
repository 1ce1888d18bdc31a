"""A LightningModule for sequence tasks."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning.errors import ProjUNNError, at_least, one_of
from projunn_lightning.functional import InitName, Nonlinearity
from projunn_lightning.models.supervised import Supervised, cross_entropy
from projunn_lightning.nn import RNNName, make_rnn


class SequenceModel(Supervised):
    """A recurrent network with a linear read-out, trained on pairs (input sequence, target).

    Inputs are ``(B, T, input_size)``, or integers ``(B, T)`` below ``input_size``, which are encoded one-hot. Outputs
    are ``(B, T, output_size)``, or ``(B, output_size)`` if only the last step is read. For classification, targets are
    integers ``(B, T)`` or ``(B)`` and the loss is the cross-entropy. For regression, targets have the shape of the
    outputs and the loss is the mean squared error. The module logs ``loss`` and ``accuracy`` or ``mae`` under
    ``train/``, ``val/`` and ``test/``. It trains by RMSprop unless the command line chooses another optimizer.

    Args:
        input_size: the number of features of an input, or of different integers.
        output_size: the number of classes, or of features of a target.
        hidden_size: the number of features of the state.
        num_layers: the number of recurrent layers.
        task: ``"classification"`` or ``"regression"``.
        output: ``"sequence"`` for an output at every step, ``"last"`` for one output at the end.
        rnn: the recurrent layer: ``"projunn"``, or another one to compare it with, see
            :data:`projunn_lightning.nn.RNNS`.
        nonlinearity: ``"modrelu"``, ``"relu"``, ``"tanh"`` or ``"identity"``; None for the default of the recurrent
            layer.
        init: the initialisation of the recurrent matrices, see :mod:`projunn_lightning.functional.init`; None for the
            default of the recurrent layer. It chooses the determinant of real matrices, 1 or -1, which training cannot
            change.
        rnn_options: further options of the recurrent layer, such as ``{"capacity": 2}`` for ``"eunn"``,
            ``{"reflections": 16}`` for ``"ornn"``, ``{"period": 100}`` for ``"dtriv"``, or ``{"bidirectional": True}``.
        dropout: the probability of dropout between recurrent layers.
        complex: whether the state is complex and the recurrent matrices are unitary. The read-out then sees the real
            and the imaginary part of the state.
        ignore_index: a class that the accuracy leaves out (the loss does not), such as the blank of the copying task.
        learning_rate: the learning rate of the default optimizer, RMSprop.

    Raises:
        ProjUNNError: if a size or an option is out of range; while the module runs, if a batch does not fit the sizes.
    """

    classes_option = "output_size"

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 128,
        num_layers: int = 1,
        *,
        task: Literal["classification", "regression"] = "classification",
        output: Literal["sequence", "last"] = "sequence",
        rnn: RNNName = "projunn",
        nonlinearity: Nonlinearity | None = None,
        init: InitName | None = None,
        rnn_options: dict[str, Any] | None = None,
        dropout: float = 0.0,
        complex: bool = False,
        ignore_index: int | None = None,
        learning_rate: float = 1e-3,
    ) -> None:
        one_of("task", task, ("classification", "regression"))
        one_of("output", output, ("sequence", "last"))
        at_least(2 if task == "classification" else 1, output_size=output_size)
        super().__init__(learning_rate, output_size if task == "classification" else None, ignore_index)
        self.save_hyperparameters()
        self.input_size = input_size
        self.task = task
        self.output = output
        default = torch.get_default_dtype()
        shared = {
            "nonlinearity": nonlinearity,
            "init": init,
            "dropout": dropout,
            "dtype": default.to_complex() if complex else default,
            "batch_first": True,
        }
        self.rnn = make_rnn(rnn, input_size, hidden_size, num_layers, **_joined(shared, rnn_options or {}))
        self.bidirectional = bool((rnn_options or {}).get("bidirectional"))
        features = hidden_size * (2 if complex else 1) * (2 if self.bidirectional else 1)
        self.readout = nn.Linear(features, output_size)
        nn.init.kaiming_normal_(self.readout.weight, nonlinearity="linear")
        nn.init.zeros_(self.readout.bias)

    def forward(self, input: Tensor) -> Tensor:
        if not (input.is_floating_point() or input.is_complex()):
            input = self._one_hot(input)
        states, _ = self.rnn(input)
        if states.is_complex():
            states = torch.view_as_real(states).flatten(-2)
        if self.output == "last":
            states = self._at_the_end(states)
        return self.readout(states)

    def _at_the_end(self, states: Tensor) -> Tensor:
        """The state of each direction at the end of its run, ``(B, features)``."""
        if not self.bidirectional:
            return states[:, -1]
        forward, backward = states.chunk(2, -1)
        return torch.cat([forward[:, -1], backward[:, 0]], -1)

    def _one_hot(self, input: Tensor) -> Tensor:
        try:
            return F.one_hot(input.long(), self.input_size).to(self.readout.weight.dtype)
        except RuntimeError as error:
            raise ProjUNNError(
                f"an input is no integer from 0 to input_size - 1 = {self.input_size - 1}: {error}"
            ) from None

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy over all steps, or the mean squared error."""
        expected = output.shape if self.task == "regression" else output.shape[:-1]
        if target.shape != expected:
            raise ProjUNNError(
                f"a {self.task} target must have shape {tuple(expected)} for output={self.output!r} and "
                f"output_size={output.shape[-1]}, found {tuple(target.shape)}"
            )
        if self.task == "regression":
            return F.mse_loss(output, target)
        return cross_entropy(output, target, self.classes_option)


def _joined(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The options of a recurrent layer: those that SequenceModel sets, unless they are None, and the layer's own.

    Raises:
        ProjUNNError: if the own options contain one that SequenceModel sets.
    """
    if twice := sorted(shared.keys() & own.keys()):
        raise ProjUNNError(
            f"rnn_options must hold options of the recurrent layer's own, found {', '.join(twice)}: SequenceModel sets "
            "these itself"
        )
    return {name: value for name, value in shared.items() if value is not None} | own
