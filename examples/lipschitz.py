"""A classifier of images with certified robustness: orthogonal layers make it 1-Lipschitz.

An orthogonal convolution increases no distance, and neither do GroupSort and a last layer with orthonormal rows.
Therefore |f(x) - f(y)| <= |x - y| for all images x and y. If a class leads by a margin m, it still leads after any
change of the pixels with a norm below m / sqrt(2).

    python examples/lipschitz.py

The program prints the largest ratio |f(x) - f(y)| / |x - y| that a search finds, the accuracy, and the share of the
test images whose right class is certified against every change of norm 0.2. At the end it folds the convolutions into
plain ones, which give the same outputs without this library.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projunn_lightning import CertifiedAccuracy, Projector, orthogonal
from projunn_lightning.data.digits import rendered_digits
from projunn_lightning.nn import GroupSort, OrthogonalConv2d

RADIUS = 0.2
MARGIN = 0.5


def classifier(width: int = 16) -> nn.Sequential:
    """A network for images of 28 x 28: two convolutions halve the sides, and two more have 3 x 3 kernels."""
    return nn.Sequential(
        OrthogonalConv2d(1, width, 4, stride=2),
        GroupSort(),
        OrthogonalConv2d(width, 2 * width, 2, stride=2),
        GroupSort(),
        OrthogonalConv2d(2 * width, 2 * width, 3, init="identity"),
        GroupSort(),
        OrthogonalConv2d(2 * width, 2 * width, 3, init="identity"),
        GroupSort(),
        nn.Flatten(),
        orthogonal(nn.Linear(2 * width * 7 * 7, 10), init="haar"),
    )


def largest_ratio(model: nn.Module, x: Tensor, distance: float = 0.1, rounds: int = 20) -> float:
    """Search near the images x for the largest |f(x) - f(y)| / |x - y|, by a power iteration with the gradient."""
    ratios, way = [], torch.randn_like(x)
    for _ in range(rounds):
        way = (distance * way / way.flatten(1).norm(dim=1)[:, None, None, None]).requires_grad_()
        change = (model(x + way) - model(x)).norm(dim=1)
        ratios.append(change.detach().max() / distance)
        (way,) = torch.autograd.grad(change.sum(), way)
    return torch.stack(ratios).max().item()


def folded(model: nn.Sequential) -> nn.Sequential:
    """The same network with plain convolutions."""
    return nn.Sequential(*(layer.fold() if isinstance(layer, OrthogonalConv2d) else layer for layer in model))


def images(split: str) -> tuple[Tensor, Tensor]:
    """Images with pixels from 0 to 1, and their classes."""
    pixels, labels = rendered_digits(split)
    return pixels / 255, labels


def main(steps: int = 500) -> tuple[float, float, float]:
    """Return the largest ratio found, the accuracy and the certified accuracy."""
    torch.manual_seed(0)
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    Projector(model).attach(optimizer)

    x, labels = images("train")
    for _ in range(steps):
        batch = torch.randint(len(x), (64,))
        # The right class must lead by more than the margin. The factor is there because 1-Lipschitz logits are small.
        loss = F.cross_entropy(8 * (model(x[batch]) - MARGIN * F.one_hot(labels[batch], 10)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    ratio = largest_ratio(model, x[:50], rounds=50)
    x, labels = images("test")
    with torch.no_grad():
        logits = model(x)
        assert torch.allclose(folded(model)(x), logits, atol=1e-4)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    certified = float(CertifiedAccuracy(RADIUS)(logits, labels))
    print(f"largest ratio found {ratio:.5f}, expected at most 1 up to rounding")
    print(f"accuracy {accuracy:.1%}, certified against every change of norm {RADIUS}: {certified:.1%}")
    return ratio, accuracy, certified


if __name__ == "__main__":
    main()
