"""Classification of images."""

import pytest
import torch

from projunn_lightning import ImageClassification, ProjUNNError
from projunn_lightning.data.image_classification import channel_statistics
from tests.support.image_folders import write_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "folder", 8, 6, 3)
    return "folder"


def test_each_channel_of_the_training_images_has_mean_0_and_deviation_1(folder):
    x, y = ImageClassification(folder).dataset("train").__getitems__(range(36))
    assert x.shape == (36, 3, 8, 6)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3), correction=0), torch.ones(3))


def test_test_images_are_scaled_as_the_training_images(folder):
    data = ImageClassification(folder)
    (x, _), (x_test, _) = (data.dataset(split).__getitems__(range(12)) for split in ("train", "test"))
    raw, raw_test = (data.images[split].pixels[:12].float() for split in ("train", "test"))
    scale = (x[0, 0, 0, 0] - x[1, 0, 0, 0]) / (raw[0, 0, 0, 0] - raw[1, 0, 0, 0])
    torch.testing.assert_close(x_test[:, 0] - x[:, 0], scale * (raw_test[:, 0] - raw[:, 0]), atol=1e-4, rtol=1e-4)


def test_without_standardize_the_distance_of_inputs_is_the_distance_of_images(folder):
    data = ImageClassification(folder, standardize=False)
    x, _ = data.dataset("train").__getitems__(range(36))
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    pixels = data.images["train"].pixels[:36].float() / 255
    torch.testing.assert_close(x - x[:1], pixels - pixels[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics_are_those_of_the_pixels(channels):
    images = torch.randint(256, (50, channels, 7, 9), dtype=torch.uint8)
    mean, std = channel_statistics(images)
    torch.testing.assert_close(mean, images.double().mean(dim=(0, 2, 3)).float())
    torch.testing.assert_close(std, images.double().std(dim=(0, 2, 3), correction=0).float())


def test_a_channel_of_one_colour_stays_finite():
    mean, std = channel_statistics(torch.full((3, 1, 4, 4), 7, dtype=torch.uint8))
    assert mean == 7
    assert std > 0


def test_refuses_a_crop_as_wide_as_the_image(folder):
    with pytest.raises(ProjUNNError, match="crop_padding must be below the images' side of 6, found 6"):
        ImageClassification(folder, crop_padding=6).setup()
    with pytest.raises(ProjUNNError, match="crop_padding must be 0 or more, found -1"):
        ImageClassification(folder, crop_padding=-1)
