"""Images that are read pixel by pixel."""

import numpy as np
import pytest
import torch

from projunn_lightning import PixelSequence, ProjUNNError
from tests.support.image_folders import write_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*shape):
        write_folder(tmp_path / "folder", *shape)
        return "folder"

    return write


def batch_and_images(data):
    x, _ = data.dataset("train").__getitems__([3, 0, 5])
    return x, data.images["train"].pixels[[3, 0, 5]]


def test_reads_row_by_row_from_0_to_1(folder):
    x, images = batch_and_images(PixelSequence(folder(4, 6), permutation_seed=None))
    assert x.shape == (3, 24, 1)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, :6, 0], images[:, 0, 0] / 255)
    torch.testing.assert_close(x[:, -1, 0], images[:, 0, -1, -1] / 255)


def test_reads_the_channels_of_a_pixel_together(folder):
    x, images = batch_and_images(PixelSequence(folder(4, 6, 3), permutation_seed=None))
    assert x.shape == (3, 24, 3)
    torch.testing.assert_close(x[:, 7], images[:, :, 1, 1] / 255)


def test_reads_all_images_in_the_one_order_of_the_paper():
    """RandomState(92916).permutation(784), whose stream numpy has frozen."""
    data = PixelSequence("rendered-digits")
    order = np.random.RandomState(92916).permutation(784)
    assert data.permutation.tolist() == order.tolist()
    assert order[:8].tolist() == [319, 576, 323, 107, 355, 716, 197, 20]
    assert order[-3:].tolist() == [102, 39, 346]
    x, images = batch_and_images(data)
    torch.testing.assert_close(x[..., 0], images.flatten(1)[:, order] / 255)
    x_test, _ = data.dataset("test").__getitems__([4])
    torch.testing.assert_close(x_test[0, :, 0], data.images["test"].pixels[4].flatten()[order] / 255)


def test_only_its_own_seed_determines_the_permutation():
    first, same, other = (
        PixelSequence("rendered-digits", permutation_seed=p, seed=s) for p, s in ((1, 0), (1, 5), (2, 0))
    )
    assert torch.equal(first.permutation, same.permutation)
    assert not torch.equal(first.permutation, other.permutation)
    assert PixelSequence("rendered-digits", permutation_seed=None).permutation is None


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_refuses_a_seed_that_numpy_does_not_take(seed):
    with pytest.raises(ProjUNNError, match=f"permutation_seed must be from 0 to .* found {seed}"):
        PixelSequence(permutation_seed=seed)
