import subprocess
import sys
import time

import datasets
import pytest
import torch
from image_folders import labels_of, random_images, write_folder, write_split
from PIL import Image

from projunn_lightning.data import images as module
from projunn_lightning.data.images import load_images


class TestReadsAFolderInTheHubsLayout:
    @pytest.mark.parametrize(
        ("shape", "names"),
        [((28, 28), ("image", "label")), ((32, 32, 3), ("img", "label")), ((7, 5, 3), ("img", "fine_label"))],
        ids=str,
    )
    def test_grey_and_colour_images_come_bit_for_bit(self, tmp_path, shape, names):
        written, labels = write_folder(tmp_path / "folder", *shape, names=names)
        images = load_images(str(tmp_path / "folder"), "train", str(tmp_path / "cache"))
        assert images.pixels.dtype == torch.uint8
        channels_last = torch.from_numpy(written if len(shape) == 3 else written[..., None])
        assert torch.equal(images.pixels, channels_last.permute(0, 3, 1, 2))
        assert torch.equal(images.labels, torch.from_numpy(labels))
        assert len(load_images(str(tmp_path / "folder"), "test", str(tmp_path / "cache")).labels) == 12

    def test_images_of_other_modes_are_made_rgb(self, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        for split in ("train", "test"):
            write_split(folder, split, random_images(4, 6, 6, 4), labels_of(4))
        images = load_images(str(folder), "train", str(tmp_path / "cache"))
        assert torch.equal(images.pixels, torch.from_numpy(random_images(4, 6, 6, 4)[..., :3]).permute(0, 3, 1, 2))

    def test_a_folder_of_classes_with_image_files(self, tmp_path):
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / "folder" / split / name).mkdir(parents=True)
                Image.new("L", (4, 3), color=9).save(tmp_path / "folder" / split / name / "0.png")
        images = load_images(str(tmp_path / "folder"), "train", str(tmp_path / "cache"))
        assert torch.equal(images.pixels, torch.full((2, 1, 3, 4), 9, dtype=torch.uint8))
        assert images.labels.tolist() == [0, 1]


class TestDecodesOnce:
    def test_the_second_time_reads_the_cache(self, tmp_path, monkeypatch):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), "train", str(tmp_path / "cache"))
        decodings = []
        decode = datasets.Image.decode_example

        def counted(*args, **options):
            decodings.append(1)
            return decode(*args, **options)

        monkeypatch.setattr(datasets.Image, "decode_example", counted)
        first = load_images(*args)
        assert len(decodings) >= 40
        decodings.clear()
        second = load_images(*args)
        assert not decodings
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_so_does_another_process(self, tmp_path):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), "train", str(tmp_path / "cache"))
        first = load_images(*args)
        files = sorted(path for path in (tmp_path / "cache").rglob("*.arrow"))
        code = f"from projunn_lightning.data.images import load_images; print(load_images{args!r}.pixels.long().sum())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip().splitlines()[-1] == str(first.pixels.long().sum())
        assert sorted(path for path in (tmp_path / "cache").rglob("*.arrow")) == files
        assert any("cache-" in path.name for path in files)

    def test_a_folder_with_new_files_is_read_anew(self, tmp_path):
        write_folder(tmp_path / "folder", 6, 6)
        args = (str(tmp_path / "folder"), "train", str(tmp_path / "cache"))
        load_images(*args)
        time.sleep(0.01)  # `datasets` tells files apart by their times
        changed = random_images(8, 6, 6, seed=5)
        write_split(tmp_path / "folder", "train", changed, labels_of(8))
        assert torch.equal(load_images(*args).pixels[:, 0], torch.from_numpy(changed))


class TestRefuses:
    def test_a_source_that_is_neither_a_folder_nor_reachable(self, tmp_path, monkeypatch):
        def unreachable(source, **_):
            raise ConnectionError(f"Couldn't reach {source!r} on the Hub")

        monkeypatch.setattr(datasets, "load_dataset", unreachable)
        with pytest.raises(ValueError, match=r"'ylecun/mnist' is not a local folder.*Couldn't reach.*rendered-digits"):
            load_images("ylecun/mnist", "train", str(tmp_path))

    def test_a_folder_without_data(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"is a local folder, and datasets\.load_dataset cannot read it"):
            load_images(str(tmp_path / "empty"), "train", str(tmp_path / "cache"))

    def test_a_folder_without_a_test_split(self, tmp_path):
        write_folder(tmp_path / "folder", 6, 6)
        (tmp_path / "folder" / "test-00000-of-00001.parquet").unlink()
        with pytest.raises(ValueError, match="has the splits train, expected train and test"):
            load_images(str(tmp_path / "folder"), "test", str(tmp_path / "cache"))

    @pytest.mark.parametrize(("missing", "kind"), [("image", "Image"), ("label", "ClassLabel")])
    def test_a_table_without_images_or_classes(self, tmp_path, missing, kind):
        columns = {
            "image": ([Image.new("L", (2, 2))], datasets.Image()),
            "label": ([0], datasets.ClassLabel(num_classes=2)),
            "number": ([1], datasets.Value("int64")),
        }
        del columns[missing]
        (tmp_path / "folder").mkdir()
        table = datasets.Dataset.from_dict(
            {name: values for name, (values, _) in columns.items()},
            features=datasets.Features({name: feature for name, (_, feature) in columns.items()}),
        )
        table.to_parquet(tmp_path / "folder" / "train-00000-of-00001.parquet")
        with pytest.raises(ValueError, match=f"no column of type {kind}, found .*number: Value"):
            load_images(str(tmp_path / "folder"), "train", str(tmp_path / "cache"))

    def test_images_of_several_sizes(self, tmp_path):
        (tmp_path / "folder").mkdir()
        write_split(tmp_path / "folder", "train", [random_images(1, 6, 6)[0], random_images(1, 6, 9)[0]], [0, 1])
        with pytest.raises(ValueError, match=r"images of several sizes, 6 x 6\|9 x 1"):
            load_images(str(tmp_path / "folder"), "train", str(tmp_path / "cache"))

    @pytest.mark.parametrize("source", ["ylecun/mnist", "rendered-digits"])
    def test_to_do_without_the_extra_packages(self, tmp_path, monkeypatch, source):
        def missing(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr("projunn_lightning._checks.import_module", missing)
        module.rendered_digits.cache_clear()
        with pytest.raises(ModuleNotFoundError, match=r"(datasets|PIL.ImageFont) is not installed.*\[images\]"):
            load_images(source, "train", str(tmp_path))
