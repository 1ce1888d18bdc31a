"""Modules of a user, which configs name by class path."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from projunn_lightning import orthogonal
from projunn_lightning.nn import UnitaryRNN


class Own(LightningModule):
    """A regression on the adding problem by any module that maps sequences (B, T, 2) to features (B, T, 8)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(8, 1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        out = self.body(batch[0])
        out = out[0] if isinstance(out, tuple) else out
        return (self.head(out[:, -1]) - batch[1]).square().mean()


class OwnRNN(Own):
    def __init__(self) -> None:
        super().__init__(nn.RNN(2, 8, num_layers=2, batch_first=True))


class LogsTestLoss(OwnRNN):
    """A model with another name for its test loss than the models of the package have."""

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("test_loss", 0.25)


class OwnLSTM(Own):
    def __init__(self) -> None:
        super().__init__(nn.LSTM(2, 8, batch_first=True))


class OwnLinear(Own):
    """A model with a tall, a square and a wide layer."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(2, 12), nn.Linear(12, 12), nn.Linear(12, 8)))


class OwnConv(Own):
    def __init__(self) -> None:
        super().__init__(Convolved())


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, None])[..., 0].mT


class OwnAttention(Own):
    def __init__(self) -> None:
        super().__init__(Attending())


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 8)
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        out: Tensor = self.mha(x, x, x)[0]
        return torch.tanh(out)


class Failing(Own):
    """A model whose constructor raises an error."""

    error: type[Exception] = ValueError

    def __init__(self) -> None:
        raise self.error("of the user's own making")


class BuildsLater(Own):
    """A model that creates its layers in ``configure_model``, and declares one of them orthogonal."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def configure_model(self) -> None:
        if isinstance(self.body, nn.Identity):
            self.body = nn.Sequential(nn.Linear(2, 8), orthogonal(nn.Linear(8, 8)))


class TakesThree(Own):
    """A model for three features, which refuses the two features of the adding problem."""

    def __init__(self) -> None:
        super().__init__(UnitaryRNN(3, 8))


class RenamesKeys(OwnRNN):
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {name.replace("old.", ""): v for name, v in checkpoint["state_dict"].items()}


class Passes(LightningModule):
    """A model of one weight w, which grows by 1 in each step and passes its best, w = 2. The test loss is w."""

    comparable_loss = False

    def __init__(self, validation: str = "val/loss") -> None:
        super().__init__()
        self.validation = validation
        self.w = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return -self.w

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log(self.validation, (self.w - 2).square(), sync_dist=True)
        self.log("val/growth", self.w, sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/loss", self.w, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)
