"""Lightning Fabric: an LSTM with four orthogonal recurrent matrices reads digits row by row.

The projector is made and attached before `fabric.setup`, because there the parameters still have the names that the
model gives them. A checkpoint can hold the projector:
`fabric.save(path, {"model": net, "optimizer": optimizer, "projector": projector})`.

    python examples/fabric.py

The program prints the loss during the training, and at the end the accuracy on new images and the unitarity error.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning import Projector
from projunn_lightning.data.digits import rendered_digits


class Reader(nn.Module):
    """An LSTM that reads the rows of an image as a sequence, and a linear read-out of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 64, batch_first=True)
        self.readout = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        states, _ = self.lstm(images.squeeze(1))
        return self.readout(states[:, -1])


def digits(split: str) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of images with pixels from 0 to 1, and their classes."""
    pixels, labels = rendered_digits(split)
    return DataLoader(TensorDataset(pixels / 255, labels), batch_size=100, shuffle=split == "train")


def forever(loader: Iterable[Any]) -> Iterator[Any]:
    """Repeat a loader without end, each time in a new order."""
    while True:
        yield from loader


def main(steps: int = 600) -> tuple[float, float]:
    """Return the accuracy on new images, and the largest unitarity error of the four matrices."""
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    projector = Projector(model, "lstm.weight_hh_l*").attach(optimizer)
    net, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(digits("train"))

    for step, (images, labels) in enumerate(itertools.islice(forever(loader), steps)):
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        if step % 100 == 99:
            fabric.print(f"step {step + 1:4}  loss {loss.item():.3f}")

    with torch.no_grad():
        right = [(net(images).argmax(1) == labels) for images, labels in fabric.setup_dataloaders(digits("test"))]
    accuracy = torch.cat(right).float().mean().item()
    error = max(projector.unitarity_errors().values()).item()
    fabric.print(f"accuracy {accuracy:.1%}, unitarity error {error:.1e}")
    return accuracy, error


if __name__ == "__main__":
    main()
