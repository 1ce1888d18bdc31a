"""A small model of a user, and the functions that fit it."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning.functional import unitarity_error


class Net(LightningModule):
    """A regression on 4 numbers. Patterns choose the layers to constrain."""

    def __init__(self, optimizer=torch.optim.SGD, **options):
        super().__init__()
        self.into = nn.Linear(4, 6)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 1)
        self.learning_rate = 0.05
        self.optimizer = lambda parameters: optimizer(parameters, **{"lr": self.learning_rate, **options})

    def forward(self, x):
        for layer in (self.into, self.first, self.second):
            x = torch.tanh(layer(x))
        return self.head(x)

    def loss(self, batch):
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        return self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])


class Validated(Net):
    def validation_step(self, batch, batch_idx):
        self.log("loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)


def loader(batches=6, size=4):
    x = torch.randn(batches * size, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), size)


def trainer(*callbacks, **options):
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **{**defaults, **options})


def error(weight):
    return float(unitarity_error(weight.detach()))


def steps(method):
    """The number of updates of each constrained weight, by name."""
    return {name: state["step"] for name, state in method.state_dict().items()}
