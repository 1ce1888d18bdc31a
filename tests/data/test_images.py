"""Labelled images of a source."""

import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from projunn_lightning import ProjUNNError
from projunn_lightning.data import images as module
from projunn_lightning.data.images import load_images
from tests.support.image_folders import labels_of, random_images, write_folder, write_split


@pytest.fixture
def folder_of(tmp_path):
    """Writes a folder of two images a split, one split with other columns; returns the arguments of load_images."""

    def write(split=None, columns=None, features=None):
        (tmp_path / "folder").mkdir()
        for name in ("train", "test"):
            table = {"image": [Image.new("L", (6, 5))] * 2, "label": [0, 1]}
            kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=2)} | (features or {})
            table |= (columns or {}) if split in (None, name) else {}
            table = {column: values for column, values in table.items() if values is not None}
            kinds = datasets.Features({column: kinds[column] for column in table})
            path = tmp_path / "folder" / f"{name}-00000-of-00001.parquet"
            datasets.Dataset.from_dict(table, features=kinds).to_parquet(path)
        return str(tmp_path / "folder"), str(tmp_path / "cache")

    return write


class TestReadsAFolderInTheHubsLayout:
    @pytest.mark.parametrize(
        ("shape", "names"),
        [((28, 28), ("image", "label")), ((32, 32, 3), ("img", "label")), ((7, 5, 3), ("img", "fine_label"))],
        ids=str,
    )
    def test_grey_and_colour_images_come_bit_for_bit(self, tmp_path, shape, names):
        written, labels = write_folder(tmp_path / "folder", *shape, names=names)
        images = load_images(str(tmp_path / "folder"), str(tmp_path / "cache"))["train"]
        assert images.pixels.dtype == torch.uint8
        channels_last = torch.from_numpy(written if len(shape) == 3 else written[..., None])
        assert torch.equal(images.pixels, channels_last.permute(0, 3, 1, 2))
        assert torch.equal(images.labels, torch.from_numpy(labels))
        assert len(load_images(str(tmp_path / "folder"), str(tmp_path / "cache"))["test"].labels) == 12

    @pytest.mark.parametrize(
        ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)]
    )
    def test_grey_images_of_any_mode_stay_grey_and_others_become_rgb(self, tmp_path, mode, channels):
        image = Image.fromarray(random_images(1, 6, 5, 3)[0]).convert(mode)
        expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(6, 5, channels)
        kind = "tiff" if mode == "CMYK" else "png"
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / "folder" / split / name).mkdir(parents=True)
                image.save(tmp_path / "folder" / split / name / f"0.{kind}")
        images = load_images(str(tmp_path / "folder"), str(tmp_path / "cache"))["train"]
        assert torch.equal(images.pixels[0], torch.tensor(expected).permute(2, 0, 1))

    def test_integer_classes(self, folder_of):
        folder = folder_of(features={"label": datasets.Value("int64")})
        assert load_images(*folder)["train"].labels.tolist() == [0, 1]

    def test_the_fine_classes_of_cifar_100(self, folder_of):
        classes = {f"{kind}_label": datasets.ClassLabel(num_classes=4) for kind in ("fine", "coarse")}
        folder = folder_of(columns={"fine_label": [2, 3], "coarse_label": [0, 0], "label": None}, features=classes)
        assert load_images(*folder)["train"].labels.tolist() == [2, 3]

    def test_a_folder_of_classes_with_image_files(self, tmp_path):
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / "folder" / split / name).mkdir(parents=True)
                Image.new("L", (4, 3), color=9).save(tmp_path / "folder" / split / name / "0.png")
        images = load_images(str(tmp_path / "folder"), str(tmp_path / "cache"))["train"]
        assert torch.equal(images.pixels, torch.full((2, 1, 3, 4), 9, dtype=torch.uint8))
        assert images.labels.tolist() == [0, 1]


def write_classes(folder, *splits, sides=(4, 5)):
    """Write a folder of image files for each of two classes. The second image of each class is one pixel taller."""
    for split in splits or ("",):
        for colour, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number, height in enumerate(sides):
                Image.new("L", (3, height), color=100 * colour).save(folder / split / name / f"{number}.png")


class TestAFolderOfImageFiles:
    def test_without_splits_is_for_training(self, tmp_path):
        write_classes(tmp_path / "folder", sides=(4, 4))
        images = load_images(str(tmp_path / "folder"), str(tmp_path / "cache"))
        assert list(images) == ["train"]
        assert images["train"].labels.tolist() == [0, 0, 1, 1]
        assert images.num_classes == 2

    @pytest.mark.parametrize("splits", [(), ("train", "test")], ids=str)
    def test_of_several_sizes_is_resized(self, tmp_path, splits):
        write_classes(tmp_path / "folder", *splits)
        for size in ((6, 7), (2, 2)):  # another size is not served from the cache
            images = load_images(str(tmp_path / "folder"), str(tmp_path / "cache"), size)
            for each in images.values():
                assert each.pixels.shape == (4, 1, *size)
                assert each.pixels[each.labels == 1].unique().tolist() == [100]

    def test_of_several_sizes_is_refused_by_a_message_that_names_the_option(self, tmp_path):
        write_classes(tmp_path / "folder")
        with pytest.raises(ProjUNNError, match=r"4 x 3 x 1 and of 5 x 3 x 1 .*such as --data\.resize 32"):
            load_images(str(tmp_path / "folder"), str(tmp_path / "cache"))


def test_a_class_without_images_counts(folder_of):
    folder = folder_of(features={"label": datasets.ClassLabel(num_classes=7)})
    assert load_images(*folder).num_classes == 7


def test_drawn_digits_are_resized():
    images = load_images("rendered-digits", resize=(10, 12))
    assert images["test"].pixels.shape == (2000, 1, 10, 12)
    assert images["test"].pixels.dtype == torch.uint8
    assert images.num_classes == 10


class TestDecodesOnce:
    def test_the_second_time_reads_the_cache(self, tmp_path, monkeypatch):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), str(tmp_path / "cache"))
        decodings = []
        decode = datasets.Image.decode_example

        def counted(*args, **options):
            decodings.append(1)
            return decode(*args, **options)

        monkeypatch.setattr(datasets.Image, "decode_example", counted)
        first = load_images(*args)["train"]
        assert len(decodings) >= 40
        decodings.clear()
        second = load_images(*args)["train"]
        assert not decodings
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    @pytest.mark.slow
    def test_so_does_another_process(self, tmp_path):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), str(tmp_path / "cache"))
        first = load_images(*args)["train"]
        files = sorted(path for path in (tmp_path / "cache").rglob("*.arrow"))
        code = (
            "from projunn_lightning.data.images import load_images\n"
            f"print(load_images{args!r}['train'].pixels.long().sum())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().splitlines()[-1] == str(first.pixels.long().sum())
        assert sorted(path for path in (tmp_path / "cache").rglob("*.arrow")) == files
        assert any("cache-" in path.name for path in files)

    def test_a_new_way_of_decoding_is_not_served_from_the_old_cache(self, tmp_path, monkeypatch):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), str(tmp_path / "cache"))
        load_images(*args)
        files = len(list((tmp_path / "cache").rglob("*.arrow")))
        monkeypatch.setattr(module, "DECODING", module.DECODING + 1)
        load_images(*args)
        assert len(list((tmp_path / "cache").rglob("*.arrow"))) == files + 2

    def test_a_folder_with_new_files_is_read_anew(self, tmp_path):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), str(tmp_path / "cache"))
        load_images(*args)
        time.sleep(0.01)  # `datasets` recognises a changed file by its time
        changed = random_images(8, 6, 6, seed=5)
        write_split(tmp_path / "folder", "train", changed, labels_of(8))
        assert torch.equal(load_images(*args)["train"].pixels[:, 0], torch.from_numpy(changed))


class TestRefuses:
    def test_a_source_that_is_neither_a_folder_nor_reachable(self, tmp_path, monkeypatch):
        def unreachable(source, **_):
            raise ConnectionError(f"Couldn't reach {source!r} on the Hub")

        monkeypatch.setattr(datasets, "load_dataset", unreachable)
        with pytest.raises(ProjUNNError, match=r"'ylecun/mnist' is not a local folder.*Couldn't reach.*rendered"):
            load_images("ylecun/mnist", str(tmp_path))

    def test_a_folder_without_data(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ProjUNNError, match=r"is a local folder, and datasets\.load_dataset cannot read it"):
            load_images(str(tmp_path / "empty"), str(tmp_path / "cache"))

    def test_a_folder_with_a_single_split_that_is_not_for_training(self, folder_of):
        folder = folder_of()
        (Path(folder[0]) / "train-00000-of-00001.parquet").unlink()
        with pytest.raises(ProjUNNError, match="has the splits test, expected train and test, or train alone"):
            load_images(*folder)

    @pytest.mark.parametrize(("missing", "kind"), [("image", "Image"), ("label", "ClassLabel")])
    def test_a_table_without_images_or_classes(self, folder_of, missing, kind):
        folder = folder_of(columns={missing: None, "number": [1, 2]}, features={"number": datasets.Value("int64")})
        with pytest.raises(ProjUNNError, match=f"split 'train' has no column of type {kind}, found .*number: Value"):
            load_images(*folder)

    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"label": [0, None]}, "has images without a class"),
            ({"label": [0, -1]}, "has images without a class"),
            ({"image": [Image.new("L", (6, 5)), None]}, "has a row without an image"),
            (
                {"image": [Image.new("L", (6, 5)), Image.new("L", (6, 9))]},
                r"of 5 x 6 x 1 and of 9 x 6 x 1 \(H x W x C\); set the option resize, such as --data.resize 32",
            ),
            (
                {"image": [Image.new("L", (6, 5)), Image.new("RGB", (6, 5))]},
                "of 5 x 6 x 3 .*; convert all images to grey",
            ),
            ({"image": [Image.new("I;16", (6, 5))] * 2}, "mode I;16, expected 8 bits a channel"),
            ({"image": [{"bytes": b"no image", "path": None}] * 2}, "a file is no image that Pillow can read"),
        ],
        ids=["null label", "hidden label", "null image", "sizes", "grey and colour", "16 bits", "no image"],
    )
    def test_rows_that_are_no_labelled_image_before_anything_trains(self, folder_of, split, columns, message):
        folder = folder_of(split=split, columns=columns)
        with pytest.raises(ProjUNNError, match=f"split '{split}'.*{message}"):
            load_images(*folder)

    def test_train_and_test_images_of_two_shapes(self, folder_of):
        folder = folder_of(split="test", columns={"image": [Image.new("RGB", (6, 5))] * 2})
        with pytest.raises(
            ProjUNNError, match=r"train images of \(C, H, W\) = \(1, 5, 6\) and test images of \(3, 5, 6\)"
        ):
            load_images(*folder)

    @pytest.mark.parametrize("source", ["ylecun/mnist", "rendered-digits"])
    def test_to_do_without_the_extra_packages(self, tmp_path, monkeypatch, source):
        def missing(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("projunn_lightning.errors.import_module", missing)
        module.rendered_digits.cache_clear()
        with pytest.raises(ProjUNNError, match=r"(datasets|PIL.ImageFont) is not installed.*\[images\]"):
            load_images(source, str(tmp_path))
