"""A plain PyTorch loop: find an unknown rotation from noisy pairs of points.

A linear layer is declared orthogonal, and a `Projector` keeps it orthogonal under SGD with momentum. The best rotation
is known: it solves the orthogonal Procrustes problem, whose closed solution needs an SVD of all the data at once.

    python examples/plain_pytorch.py

The program prints the distance of the layer from the best rotation, and its unitarity error, during the training.
"""

import torch
from torch import Tensor, nn

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import nearest_unitary, unitarity_error

SIZE = 64


def pairs(count: int = 4096) -> tuple[Tensor, Tensor]:
    """Points, and the same points after a rotation and with noise; both have the shape (count, SIZE)."""
    points = torch.randn(count, SIZE)
    directions = torch.randn(SIZE, SIZE) / 8
    rotation = torch.matrix_exp(directions - directions.mT)
    return points, points @ rotation.mT + 0.1 * torch.randn(count, SIZE)


def main(steps: int = 1000) -> tuple[float, float]:
    """Return the final distance to the best rotation, and the unitarity error."""
    torch.manual_seed(0)
    points, rotated = pairs()
    best = nearest_unitary(rotated.mT @ points)

    layer = orthogonal(nn.Linear(SIZE, SIZE, bias=False), init="identity")
    optimizer = torch.optim.SGD(layer.parameters(), lr=3.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    projector = Projector(layer).attach(optimizer)

    for step in range(steps + 1):
        distance = torch.dist(layer.weight, best).item() / SIZE**0.5
        error = unitarity_error(layer.weight).item()
        if step % max(steps // 10, 1) == 0:
            print(f"step {step:5}  distance to the best rotation {distance:.4f}  unitarity error {error:.1e}")
        if step < steps:
            batch = torch.randint(len(points), (256,))
            loss = nn.functional.mse_loss(layer(points[batch]), rotated[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    projector.detach()
    return distance, error


if __name__ == "__main__":
    main()
