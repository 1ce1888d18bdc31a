"""Random crops and flips."""

import pytest
import torch
from torch import Generator
from torch.nn import functional as F

from projunn_lightning.data.augmentation import random_crop_and_flip


def mirrored_crops(image, padding):
    """All crops of the image after padding by reflection with torch's own function."""
    _, height, width = image.shape
    padded = F.pad(image.double()[None], [padding] * 4, mode="reflect")[0].to(image.dtype)
    return [padded[:, i : i + height, j : j + width] for i in range(2 * padding + 1) for j in range(2 * padding + 1)]


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 5, 8)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
def test_every_image_is_a_crop_of_its_reflection_padded_self(shape, dtype, flip):
    images = torch.randint(256, (400, *shape)).to(dtype)
    output = random_crop_and_flip(images, 2, flip)
    assert output.shape == images.shape
    assert output.dtype == dtype
    seen = set()
    for image, cropped in zip(images, output, strict=True):
        crops = mirrored_crops(image, 2)
        crops += [crop.flip(-1) for crop in crops] if flip else []
        matches = [i for i, crop in enumerate(crops) if torch.equal(crop, cropped)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == (50 if flip else 25)  # 400 draws contain every crop, plain and mirrored


def test_half_are_flipped():
    image = torch.arange(4).expand(2000, 1, 1, 4)
    flipped = random_crop_and_flip(image, 0)[:, 0, 0, 0] == 3
    assert 0.45 < flipped.float().mean() < 0.55


def test_without_padding_and_flip_nothing_changes():
    images = torch.rand(3, 2, 4, 5)
    assert torch.equal(random_crop_and_flip(images, 0, flip=False), images)


def test_the_generator_decides():
    images = torch.rand(20, 1, 8, 8)
    first, second, other = (random_crop_and_flip(images, generator=Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
