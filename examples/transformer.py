"""A transformer with orthogonal attention: Lightning's demo Transformer, unchanged, sorts sets of numbers.

Patterns choose the weights of every attention in the encoder and the decoder: the query, key and value projections,
which are three square matrices stacked in `in_proj_weight`, and the output projection. All other weights are trained
without a constraint.

    python examples/transformer.py

The program prints the share of correct tokens in new sorted sets, the number of orthogonal matrices, and their largest
unitarity error.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.demos import Transformer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning import ProjUNN

NUMBERS, LENGTH = 32, 10
ATTENTION = ["*attn.in_proj_weight", "*attn.out_proj.weight"]


class Sorter(LightningModule):
    """A transformer that writes a set of numbers in order. For each token the decoder sees the tokens before it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Transformer(vocab_size=NUMBERS + 1, ninp=64, nhead=4, nhid=128, nlayers=2, dropout=0.0)

    def forward(self, input: Tensor) -> Tensor:
        target = input.sort(dim=1).values
        before = F.pad(target[:, :-1], (1, 0), value=NUMBERS)  # the start has a token of its own
        return self.model(input, before).unflatten(0, target.shape)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.nll_loss(self(batch[0]).flatten(0, 1), batch[0].sort(dim=1).values.flatten())
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(-1) == batch[0].sort(dim=1).values).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def sets(count: int) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of sets of distinct numbers in random order."""
    return DataLoader(TensorDataset(torch.rand(count, NUMBERS).argsort(dim=1)[:, :LENGTH]), batch_size=64)


def main(steps: int = 300) -> tuple[float, float]:
    """Return the accuracy on new sets, and the largest unitarity error."""
    seed_everything(0, verbose=False)
    model = Sorter()
    projunn = ProjUNN(ATTENTION)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=projunn,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, sets(64 * steps))
    accuracy = trainer.test(model, sets(1024), verbose=False)[0]["accuracy"]

    assert projunn.projector is not None
    errors = projunn.projector.unitarity_errors()
    constraints = projunn.projector.constraints.values()
    matrices = sum(stack.chunks for constraint in constraints for stack in constraint.stacks)
    worst = max(errors.values()).item()
    print(
        f"tokens right after {steps} steps: {accuracy:.1%}; {matrices} orthogonal matrices, error at most {worst:.1e}"
    )
    return accuracy, worst


if __name__ == "__main__":
    main()
