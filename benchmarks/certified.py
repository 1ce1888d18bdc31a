"""``python -m benchmarks.certified``: accuracy and certified accuracy of 1-Lipschitz networks of several libraries.

Every contestant is the 1-Lipschitz ResNet-9 of this package, with its own convolutions, at the same optimizer,
schedule, loss and number of epochs. A row of the CSV file is an epoch of a contestant; contestants that are finished
are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn

from benchmarks.runner import read
from projunn_lightning import ImageClassification, ImageClassifier, ProjUNN
from projunn_lightning.nn import CONVOLUTIONS

COLUMNS = ("contestant", "width", "seed", "epoch", "seconds", "split", "loss", "accuracy", "certified accuracy")


def torchlip(inputs: int, outputs: int, size: tuple[int, int], init: str, bias: bool) -> nn.Module:
    """The convolution of deel-torchlip: the kernel as an orthogonal matrix, times a bound for its size."""
    from deel.torchlip import SpectralConv2d

    return SpectralConv2d(inputs, outputs, 3, padding="same", padding_mode="circular", bias=bias)


def orthogonium(inputs: int, outputs: int, size: tuple[int, int], init: str, bias: bool) -> nn.Module:
    """The convolution AOC of orthogonium: a block convolution whose matrices are made orthogonal by iterations."""
    from orthogonium.layers import AdaptiveOrthoConv2d

    return AdaptiveOrthoConv2d(inputs, outputs, 3, padding=1, padding_mode="circular", bias=bias)


CONTESTANTS: dict[str, dict[str, Any]] = {
    "OrthogonalConv2d": {"convolution": "orthogonal"},
    "OrthogonalConv2d, norm pooling": {"convolution": "orthogonal", "pooling": "norm"},
    "deel-torchlip, norm pooling": {"convolution": "torchlip", "pooling": "norm"},
    "orthogonium, norm pooling": {"convolution": "orthogonium", "pooling": "norm"},
}
"""The options of ImageClassifier by contestant."""


class Rows(Callback):
    """Writes a row after each validation, and one for the test."""

    def __init__(self, path: Path, contestant: str, width: int, seed: int) -> None:
        self.path = path
        self.run = (contestant, width, seed)
        self.start = time.perf_counter()

    def write(self, trainer: Trainer, split: str) -> None:
        figures = [
            float(trainer.callback_metrics[f"{split}/{name}"]) for name in ("loss", "accuracy", "certified_accuracy")
        ]
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            seconds = round(time.perf_counter() - self.start)
            writer.writerow(
                [*self.run, trainer.current_epoch, seconds, split, *(f"{figure:.4f}" for figure in figures)]
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.write(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer, "test")


class Scheduled(ImageClassifier):
    """Adam with a cosine schedule, as in ``configs/cifar10_lipschitz.yaml``."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def train(contestant: str, options: argparse.Namespace) -> None:
    """Train one contestant, and append its rows to the CSV file."""
    seed_everything(options.seed, verbose=False)
    data = ImageClassification(
        options.source, standardize=False, crop_padding=4, horizontal_flip=True, batch_size=128, seed=options.seed
    )
    data.setup()
    _, channels, height, width = data.images["train"].pixels.shape
    model = Scheduled(
        "resnet9",
        channels,
        (height, width),
        lipschitz=True,
        width=options.width,
        margin=options.margin,
        temperature=options.temperature,
        learning_rate=options.rate,
        **CONTESTANTS[contestant],
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=options.epochs,
        max_time={"minutes": options.minutes},
        limit_train_batches=options.batches,
        callbacks=[ProjUNN(lr_divider=options.divider), Rows(options.output, contestant, options.width, options.seed)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data)


def main() -> None:
    """Train the contestants that the CSV file does not have yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certified", description=__doc__)
    parser.add_argument("contestants", nargs="*", metavar="contestant", help=f"some of {', '.join(CONTESTANTS)} (all)")
    parser.add_argument("--source", default="uoft-cs/cifar10")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batches", type=int, help="training batches of an epoch (default: all)")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-2, help="the learning rate")
    parser.add_argument("--divider", type=float, default=0.3, help="lr_divider of the constrained weights")
    parser.add_argument("--margin", type=float, default=0.4)
    parser.add_argument("--temperature", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=int, default=150, help="the most minutes of a contestant")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/certified.csv"))
    options = parser.parse_args()
    CONVOLUTIONS.update(torchlip=torchlip, orthogonium=orthogonium)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for contestant in options.contestants or CONTESTANTS:
        done = [row["contestant"] for row in read(options.output) if row["split"] == "test"]
        if contestant not in done:
            train(contestant, options)


if __name__ == "__main__":
    main()
