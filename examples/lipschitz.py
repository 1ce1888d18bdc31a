"""A classifier that no small change can mislead: orthogonal layers bound its Lipschitz constant by 1.

A matrix with orthonormal rows stretches nothing, and neither does sorting pairs of features (GroupSort; Anil, Lucas and
Grosse 2019). So |f(x) - f(y)| <= |x - y| for all images, and a class that leads by a margin m keeps its lead under any
change of the pixels below m / sqrt(2).

    python examples/lipschitz.py

prints the bound computed from the weights, the largest ratio that a search finds, the accuracy, and how much of it is
certified against every change of norm 0.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.data.digits import rendered_digits

RADIUS = 0.2


class GroupSort(nn.Module):
    """Sorts features in pairs: 1-Lipschitz, and unlike ReLU it keeps the norm of the gradient."""

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(-1, (-1, 2)).sort(dim=-1).values.flatten(-2)


def classifier(width: int = 256) -> nn.Sequential:
    """Three linear layers, the wide ones with orthonormal rows."""
    first = orthogonal(nn.Linear(28 * 28, width), init="haar")
    second = orthogonal(nn.Linear(width, width), init="haar")
    third = orthogonal(nn.Linear(width, 10), init="haar")
    return nn.Sequential(nn.Flatten(), first, GroupSort(), second, GroupSort(), third)


def lipschitz_bound(model: nn.Sequential) -> float:
    """The product of the layers' spectral norms."""
    norms = [torch.linalg.matrix_norm(layer.weight, ord=2) for layer in model if isinstance(layer, nn.Linear)]
    return torch.stack(norms).prod().item()


def largest_ratio(model: nn.Sequential, x: Tensor, distance: float = 0.1, rounds: int = 20) -> float:
    """Searches near the images x for the largest |f(x) - f(y)| / |x - y|, by a power iteration with the gradient."""
    ratios, way = [], torch.randn_like(x)
    for _ in range(rounds):
        way = (distance * way / way.flatten(1).norm(dim=1)[:, None, None, None]).requires_grad_()
        change = (model(x + way) - model(x)).norm(dim=1)
        ratios.append(change.detach().max() / distance)
        (way,) = torch.autograd.grad(change.sum(), way)
    return torch.stack(ratios).max().item()


def images(split: str) -> tuple[Tensor, Tensor]:
    """Pixels in 0 to 1, and the classes."""
    pixels, labels = rendered_digits(split)
    return pixels / 255, labels


def main(steps: int = 1000) -> tuple[float, float, float, float]:
    """The bound, the largest ratio found, the accuracy and the certified accuracy."""
    torch.manual_seed(0)
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    Projector(model, rank=8).attach(optimizer)

    x, labels = images("train")
    for _ in range(steps):
        batch = torch.randint(len(x), (128,))
        loss = F.cross_entropy(8 * model(x[batch]), labels[batch])  # a 1-Lipschitz function has small logits
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.double()  # or the search would measure the rounding of float32
    x, labels = images("test")
    x = x.double()
    bound, ratio = lipschitz_bound(model), largest_ratio(model, x[:500])
    with torch.no_grad():
        logits = model(x)
    right = logits.argmax(1) == labels
    first, second = logits.topk(2, dim=1).values.unbind(1)
    accuracy = right.float().mean().item()
    certified = (right & (first - second > 2**0.5 * bound * RADIUS)).float().mean().item()
    print(f"Lipschitz bound {bound:.6f}, largest ratio found {ratio:.6f}")
    print(f"accuracy {accuracy:.1%}, certified against every change of norm {RADIUS}: {certified:.1%}")
    return bound, ratio, accuracy, certified


if __name__ == "__main__":
    main()
