"""A classifier with certified robustness: orthogonal layers bound its Lipschitz constant by 1.

A matrix with orthonormal rows increases no distance, and sorting features in pairs increases none either (GroupSort;
Anil, Lucas and Grosse 2019). Therefore |f(x) - f(y)| <= |x - y| for all images x and y. If a class leads by a margin m,
it still leads after any change of the pixels with a norm below m / sqrt(2).

    python examples/lipschitz.py

The program prints the bound that follows from the weights, the largest ratio that a search finds, the accuracy, and the
share of the test images whose correct class is certified against every change of norm 0.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.data.digits import rendered_digits

RADIUS = 0.2


class GroupSort(nn.Module):
    """Sort features in pairs. The map is 1-Lipschitz and, unlike ReLU, keeps the norm of the gradient."""

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(-1, (-1, 2)).sort(dim=-1).values.flatten(-2)


def classifier(width: int = 256) -> nn.Sequential:
    """Three linear layers with orthonormal rows."""
    first = orthogonal(nn.Linear(28 * 28, width), init="haar")
    second = orthogonal(nn.Linear(width, width), init="haar")
    third = orthogonal(nn.Linear(width, 10), init="haar")
    return nn.Sequential(nn.Flatten(), first, GroupSort(), second, GroupSort(), third)


def lipschitz_bound(model: nn.Sequential) -> float:
    """The product of the spectral norms of the layers."""
    norms = [torch.linalg.matrix_norm(layer.weight, ord=2) for layer in model if isinstance(layer, nn.Linear)]
    return torch.stack(norms).prod().item()


def largest_ratio(model: nn.Sequential, x: Tensor, distance: float = 0.1, rounds: int = 20) -> float:
    """Search near the images x for the largest |f(x) - f(y)| / |x - y|, by a power iteration with the gradient."""
    ratios, way = [], torch.randn_like(x)
    for _ in range(rounds):
        way = (distance * way / way.flatten(1).norm(dim=1)[:, None, None, None]).requires_grad_()
        change = (model(x + way) - model(x)).norm(dim=1)
        ratios.append(change.detach().max() / distance)
        (way,) = torch.autograd.grad(change.sum(), way)
    return torch.stack(ratios).max().item()


def images(split: str) -> tuple[Tensor, Tensor]:
    """Images with pixels from 0 to 1, and their classes."""
    pixels, labels = rendered_digits(split)
    return pixels / 255, labels


def main(steps: int = 1000) -> tuple[float, float, float, float]:
    """Return the bound, the largest ratio found, the accuracy and the certified accuracy."""
    torch.manual_seed(0)
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    Projector(model).attach(optimizer)

    x, labels = images("train")
    for _ in range(steps):
        batch = torch.randint(len(x), (128,))
        loss = F.cross_entropy(8 * model(x[batch]), labels[batch])  # 1-Lipschitz logits are small
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.double()  # in float32 the search would measure rounding
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
