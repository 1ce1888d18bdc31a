"""Digits drawn on the spot: images to learn from without a download."""

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
    """Grey images ``(n, 1, 28, 28)`` of uint8 of the ten digits, and their classes ``(n,)``.

    Pillow draws each digit in two weights; every image shows one of them turned by up to 20 degrees, scaled by 0.7
    to 1.2, moved by up to 3 pixels and under noise of standard deviation 25. They are the same in every run: 10,000 for
    ``"train"`` and 2,000 for ``"test"``.
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
    """Maps ``(count, 2, 3)`` from an image's coordinates, in -1 to 1, to those of its glyph."""
    angle, scale, *shift = torch.rand(4, count, generator=generator)
    angle = torch.deg2rad(40 * angle - 20)
    scale = 0.7 + 0.5 * scale
    across, down = (6 / SIDE * (2 * s - 1) for s in shift)  # an image is 2 wide
    cos, sin = angle.cos() / scale, angle.sin() / scale
    return torch.stack([cos, -sin, across, sin, cos, down], dim=-1).view(count, 2, 3)


def _glyphs() -> Tensor:
    """The digits in two weights, ``(10, 2, 28, 28)``, white on black, in 0 to 255."""
    font = import_extra("PIL.ImageFont").load_default(size=22)
    return torch.stack([torch.stack([_drawn(str(digit), font, width) for width in range(2)]) for digit in range(10)])


def _drawn(text: str, font: Any, stroke_width: int) -> Tensor:
    image = import_extra("PIL.Image").new("L", (SIDE, SIDE))
    middle = (SIDE / 2, SIDE / 2)
    draw = import_extra("PIL.ImageDraw").Draw(image)
    draw.text(middle, text, fill=255, font=font, anchor="mm", stroke_width=stroke_width)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIDE, SIDE).float()
