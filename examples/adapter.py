"""Fine-tuning by rotation: an orthogonal adapter R in front of a frozen weight W0 (orthogonal fine-tuning).

A small network learns to read digits. Then all images are turned on their side, and only a rotation R of the first
layer's features is trained: the layer computes with R W0 (Qiu et al. 2023). R starts as the identity, so that nothing
is lost at the start. R stays orthogonal, so that R W0 keeps the singular values of W0 and the angles between its
columns, one for each pixel. The angles between its rows, the features, may change.

    python examples/adapter.py

The program prints the accuracy on the turned digits before and after the fine-tuning, and the largest change of a
singular value of the weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.data.digits import rendered_digits


class Rotated(nn.Module):
    """A frozen linear layer whose weight is multiplied by an orthogonal matrix."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.rotation = nn.Parameter(torch.empty(layer.out_features, layer.out_features))
        orthogonal(self, "rotation", init="identity")

    @property
    def weight(self) -> Tensor:
        return self.rotation @ self.layer.weight

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.layer.bias)


def images(split: str, quarters: int) -> tuple[Tensor, Tensor]:
    """Digits turned by a number of quarters of a circle, as pixels from 0 to 1, and their labels."""
    pixels, labels = rendered_digits(split)
    return pixels.rot90(quarters, dims=(2, 3)).flatten(1) / 255, labels


def train(model: nn.Module, optimizer: torch.optim.Optimizer, quarters: int, steps: int) -> None:
    """Train a model by cross-entropy on random batches of the turned digits."""
    x, labels = images("train", quarters)
    for _ in range(steps):
        batch = torch.randint(len(x), (128,))
        loss = F.cross_entropy(model(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, quarters: int) -> float:
    """The share of the turned test digits that a model classifies correctly."""
    x, labels = images("test", quarters)
    return (model(x).argmax(1) == labels).float().mean().item()


def main(steps: int = 1000) -> tuple[float, float, float]:
    """Return the accuracy on turned digits before and after, and the largest change of a singular value."""
    torch.manual_seed(0)
    layer, readout = nn.Linear(28 * 28, 256), nn.Linear(256, 10)
    pretrained = nn.Sequential(layer, nn.ReLU(), readout)
    train(pretrained, torch.optim.Adam(pretrained.parameters(), lr=1e-3), quarters=0, steps=steps)

    adapter = Rotated(layer)
    model = nn.Sequential(adapter, nn.ReLU(), readout.requires_grad_(False))
    before = accuracy(model, quarters=1)
    optimizer = torch.optim.Adam([adapter.rotation], lr=1e-3)
    Projector(model, rank=4).attach(optimizer)
    train(model, optimizer, quarters=1, steps=steps)
    after = accuracy(model, quarters=1)

    with torch.no_grad():
        moved = (torch.linalg.svdvals(adapter.weight) - torch.linalg.svdvals(layer.weight)).abs().max().item()
    print(f"upright digits: {accuracy(pretrained, quarters=0):.1%} right")
    print(f"turned digits: {before:.1%} right before, {after:.1%} after training R alone")
    print(f"singular values of R W0 and W0 differ by at most {moved:.1e}")
    return before, after, moved


if __name__ == "__main__":
    main()
