"""The callback with a LightningModule of your own: an RNN remembers a symbol over a hundred silent steps.

The first input of a sequence shows one of eight classes. The other inputs are noise. The module is plain Lightning and
knows nothing of projUNN. The callback `ProjUNN` keeps the recurrent weight orthogonal, so that neither the memory nor
its gradient vanishes over the steps. Without the callback the same module stays at chance: main(constrained=False).

    python examples/lightning_module.py

The program prints the accuracy on new sequences and the largest unitarity error of the constrained weights.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning import ProjUNN

CLASSES, LENGTH, NOISE = 8, 100, 0.03


class Recall(LightningModule):
    """torch's own RNN with a linear read-out of its last state."""

    def __init__(self, hidden_size: int = 64) -> None:
        super().__init__()
        self.rnn = nn.RNN(CLASSES, hidden_size, batch_first=True)
        self.readout = nn.Linear(hidden_size, CLASSES)

    def forward(self, input: Tensor) -> Tensor:
        states, _ = self.rnn(input)
        return self.readout(states[:, -1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        input, target = batch
        loss = F.cross_entropy(self(input), target)
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        input, target = batch
        self.log("accuracy", (self(input).argmax(1) == target).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def sequences(count: int) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of sequences with a one-hot class at the first step and noise at all steps, and the classes."""
    target = torch.randint(CLASSES, (count,))
    input = NOISE * torch.randn(count, LENGTH, CLASSES)
    input[:, 0] += F.one_hot(target, CLASSES)
    return DataLoader(TensorDataset(input, target), batch_size=64)


def main(steps: int = 300, constrained: bool = True) -> tuple[float, float]:
    """Return the accuracy on new sequences, and the largest unitarity error."""
    seed_everything(0, verbose=False)
    model = Recall()
    projunn = ProjUNN("rnn.weight_hh_l*", lr_divider=8)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=projunn if constrained else None,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, sequences(64 * steps))
    error = trainer.callback_metrics.get("unitarity_error", torch.tensor(float("nan"))).item()
    accuracy = trainer.test(model, sequences(1024), verbose=False)[0]["accuracy"]
    print(f"accuracy after {steps} steps {accuracy:.1%} (chance {1 / CLASSES:.1%}), unitarity error {error:.1e}")
    return accuracy, error


if __name__ == "__main__":
    main()
