"""Images of digits that are drawn on the spot, so that a task on images needs no download."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from projunn_lightning.errors import import_extra
from projunn_lightning.linalg import generator_for

SIDE = 28
COUNTS = {"train": 10_000, "test": 2000}


@cache
def rendered_digits(split: str) -> tuple[Tensor, Tensor]:
    """Draw grey images ``(n, 1, 28, 28)``, uint8, of the ten digits. Return them and their classes ``(n,)``, int64.

    Pillow draws each digit with two stroke widths. An image shows one of these drawings, rotated by up to 20 degrees,
    scaled by a factor from 0.7 to 1.2, moved by up to 3 pixels, and with noise of standard deviation 25. The images are
    the same in every run.

    Args:
        split: ``"train"`` for 10,000 images, ``"test"`` for 2,000 others.

    Raises:
        ProjUNNError: if Pillow is not installed.
    """
    glyphs = _glyphs()
    generator = generator_for(f"rendered digits/{split}")
    count = COUNTS[split]
    labels = torch.randint(10, (count,), generator=generator)
    weights = torch.randint(glyphs.shape[1], (count,), generator=generator)
    grid = F.affine_grid(_placements(count, generator), [count, 1, SIDE, SIDE], align_corners=False)
    images = F.grid_sample(glyphs[labels, weights][:, None], grid, align_corners=False)
    noisy = images + 25 * torch.randn(images.shape, generator=generator)
    return noisy.clamp_(0, 255).round_().byte(), labels


def _placements(count: int, generator: Generator) -> Tensor:
    """Random affine maps ``(count, 2, 3)`` from the coordinates of an image, -1 to 1, to those of its drawing."""
    angle, scale, *shift = torch.rand(4, count, generator=generator)
    angle = torch.deg2rad(40 * angle - 20)
    scale = 0.7 + 0.5 * scale
    across, down = (6 / SIDE * (2 * s - 1) for s in shift)  # the width of an image is 2
    cos, sin = angle.cos() / scale, angle.sin() / scale
    return torch.stack([cos, -sin, across, sin, cos, down], dim=-1).view(count, 2, 3)


def _glyphs() -> Tensor:
    """The digits with two stroke widths, ``(10, 2, 28, 28)``, float32, from 0 (black) to 255 (white)."""
    font = import_extra("PIL.ImageFont").load_default(size=22)
    return torch.stack([torch.stack([_drawn(str(digit), font, width) for width in range(2)]) for digit in range(10)])


def _drawn(text: str, font: Any, stroke_width: int) -> Tensor:
    image = import_extra("PIL.Image").new("L", (SIDE, SIDE))
    middle = (SIDE / 2, SIDE / 2)
    draw = import_extra("PIL.ImageDraw").Draw(image)
    draw.text(middle, text, fill=255, font=font, anchor="mm", stroke_width=stroke_width)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIDE, SIDE).float()
