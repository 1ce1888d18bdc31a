"""The model of a config: a LightningModule that knows nothing of projUNN.

The config ``own_model.yaml`` constrains the weight of the RNN by a pattern.

    projunn fit --config configs/own_model.yaml
"""

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn


class PlainRNN(LightningModule):
    """torch's own RNN with a linear read-out at every step. The inputs are sequences of integers."""

    def __init__(self, input_size: int = 10, output_size: int = 9, hidden_size: int = 128) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.input_size = input_size
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.readout = nn.Linear(hidden_size, output_size)

    def forward(self, input: Tensor) -> Tensor:
        states, _ = self.rnn(F.one_hot(input, self.input_size).to(self.dtype))
        return self.readout(states)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The cross-entropy over all steps."""
        input, target = batch
        return F.cross_entropy(self(input).flatten(0, 1), target.flatten())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("test/loss", self.loss(batch))
