"""Digits that are drawn on the spot."""

import pytest
import torch
from torch import nn

from projunn_lightning.data.digits import rendered_digits
from projunn_lightning.data.images import load_images


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2000)])
def test_the_images_are_grey_with_28_x_28_pixels_and_ten_classes(split, count):
    pixels, labels = load_images("rendered-digits")[split]
    assert pixels.shape == (count, 1, 28, 28)
    assert pixels.dtype == torch.uint8
    assert labels.shape == (count,)
    assert (labels.bincount(minlength=10) > count / 15).all()


def test_the_images_are_the_same_every_time_and_the_splits_differ():
    first = rendered_digits("train")
    rendered_digits.cache_clear()
    again = rendered_digits("train")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][:2000], rendered_digits("test")[0])


def test_no_two_images_are_equal_and_no_digit_is_cut_off():
    pixels, _ = rendered_digits("test")
    assert len(pixels.flatten(1).unique(dim=0)) == 2000
    bright = (pixels > 150).float()
    border = torch.cat([bright[..., 0, :], bright[..., -1, :], bright[..., :, 0], bright[..., :, -1]], dim=-1)
    assert border.mean() < 0.005 < 0.05 < bright.mean()


def test_the_digits_are_rotated_scaled_and_moved():
    """The images of the digit 1 differ in height, in lean and in the place of their centre."""
    pixels, labels = rendered_digits("train")
    ones = (pixels[labels == 1, 0].float() - 80).clamp(min=0)
    mass = ones.sum((1, 2))
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    middle = torch.stack([(ones * axis).sum((1, 2)) / mass for axis in (rows, columns)], 1)
    down, across = (axis - m[:, None, None] for axis, m in zip((rows, columns), middle.unbind(1), strict=True))
    height = ((ones * down**2).sum((1, 2)) / mass).sqrt()
    lean = (ones * down * across).sum((1, 2)) / mass / height**2
    assert height.quantile(0.95) / height.quantile(0.05) > 1.5  # scales from 0.7 to 1.2
    assert lean.quantile(0.95) - lean.quantile(0.05) > 0.4  # tan of up to 20 degrees each way
    assert (middle.quantile(0.95, dim=0) - middle.quantile(0.05, dim=0) > 4).all()  # 3 pixels each way


def test_the_classes_can_be_learned_but_not_by_a_linear_classifier():
    """A linear classifier is better than a guess and far from perfect."""
    (x, y), (x_test, y_test) = ((p.flatten(1) / 255, labels) for p, labels in map(rendered_digits, ("train", "test")))
    model = nn.Linear(784, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for start in range(0, 10_000, 100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[start : start + 100]), y[start : start + 100]).backward()
        optimizer.step()
    accuracy = (model(x_test).argmax(1) == y_test).float().mean()
    assert 0.4 < accuracy < 0.95
