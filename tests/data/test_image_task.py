"""What the tasks on images share: the splits of a source, and the epochs of its training images."""

import math
import pickle
from pathlib import Path

import datasets
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

from projunn_lightning import ImageClassification, ImageClassifier, PixelSequence, ProjUNNError, SequenceModel
from projunn_lightning.data import TASKS, ImageTask
from tests.support.image_folders import write_folder

IMAGE_TASKS = [task for task in TASKS.values() if issubclass(task, ImageTask)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "folder", 5, 4)
    return "folder"


def content(batch):
    """The images of a batch as a set."""
    return {bytes(image.numpy().tobytes()) for image in batch}


@pytest.mark.parametrize("task", IMAGE_TASKS, ids=lambda task: task.__name__)
class TestSplits:
    def test_a_tenth_of_the_training_images_validates(self, folder, task):
        data = task(folder)
        data.setup()
        splits = {name: content(images.pixels) for name, images in data.images.items()}
        assert {name: len(images) for name, images in splits.items()} == {"train": 36, "val": 4, "test": 12}
        assert not splits["train"] & splits["val"]

    def test_a_source_is_read_once(self, folder, task, monkeypatch):
        """For a name on the Hub, every call of load_dataset asks the network."""
        calls = []
        load = datasets.load_dataset
        monkeypatch.setattr(
            datasets, "load_dataset", lambda *args, **options: (calls.append(1), load(*args, **options))[1]
        )
        data = task(folder)
        for _ in range(2):
            data.prepare_data()
            data.setup("fit")
            data.train_dataloader()
        assert len(calls) == 1

    def test_the_seed_chooses_the_validation_images(self, folder, task):
        chosen = []
        for seed in (0, 0, 1):
            data = task(folder, seed=seed)
            data.setup()
            chosen.append(content(data.images["val"].pixels))
        assert chosen[0] == chosen[1] != chosen[2]

    def test_the_baseline_is_the_loss_of_a_uniform_guess(self, folder, task):
        assert task(folder).baseline_loss == pytest.approx(math.log(4))
        assert task("rendered-digits").baseline_loss == pytest.approx(math.log(10))

    def test_decoded_images_are_kept_under_root(self, folder, task, tmp_path):
        task(folder, root="elsewhere").prepare_data()
        assert list((tmp_path / "elsewhere").rglob("cache-*.arrow"))
        assert not (tmp_path / "data").exists()

    def test_refuses_fractions_that_leave_a_split_empty(self, folder, task):
        for fraction in (0.0, 1.0, -0.1):
            with pytest.raises(ProjUNNError, match="val_fraction must be above 0 and below 1"):
                task(folder, val_fraction=fraction)
        with pytest.raises(ProjUNNError, match=r"val_fraction = 0.01 of 40 images leaves a split empty"):
            task(folder, val_fraction=0.01).setup()

    def test_the_dataset_can_be_sent_to_worker_processes(self, folder, task):
        dataset = task(folder).dataset("train")
        copy = pickle.loads(pickle.dumps(dataset))
        assert all(map(torch.equal, dataset.__getitems__([1, 7]), copy.__getitems__([1, 7])))


class TestASourceWithoutTestImages:
    @pytest.fixture
    def single(self, folder):
        next(Path(folder).glob("test*")).unlink()
        return folder

    def test_is_split_by_the_seed(self, single):
        chosen = []
        for seed in (0, 0, 1):
            data = ImageClassification(single, val_fraction=0.2, seed=seed)
            data.setup()
            splits = {name: content(images.pixels) for name, images in data.images.items()}
            assert {name: len(images) for name, images in splits.items()} == {"train": 24, "val": 8, "test": 8}
            assert len(set().union(*splits.values())) == 40
            chosen.append(splits["test"])
        assert chosen[0] == chosen[1] != chosen[2]

    def test_is_refused_if_no_image_is_left_to_train_on(self, single):
        with pytest.raises(ProjUNNError, match=r"val_fraction = 0.5 of 40 images leaves a split empty"):
            ImageClassification(single, val_fraction=0.5).setup()


@pytest.mark.parametrize("task", IMAGE_TASKS, ids=lambda task: task.__name__)
class TestResize:
    @pytest.mark.parametrize(("resize", "shape"), [(8, (8, 8)), ((6, 9), (6, 9))], ids=str)
    def test_gives_images_of_one_height_and_width(self, folder, task, resize, shape):
        data = task(folder, resize=resize)
        data.setup()
        assert {images.pixels.shape[2:] for images in data.images.values()} == {shape}

    def test_refuses_a_side_of_0(self, folder, task):
        with pytest.raises(ProjUNNError, match="resize must be 1 or more, found 0"):
            task(folder, resize=(4, 0))


class TestTheNumberOfClasses:
    @pytest.mark.parametrize("classes", [3, 5])
    def test_of_a_model_must_be_that_of_the_data_before_the_run_begins(self, folder, classes, tmp_path):
        model = ImageClassifier("plain", 1, (5, 4), classes, depth=1, width=4, convolution="plain")
        trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path / "logs")
        message = f"num_classes of ImageClassifier is {classes}, and the data has 4 classes: set num_classes to 4"
        for run in (trainer.fit, trainer.test):
            with pytest.raises(ProjUNNError, match=message):
                run(model, datamodule=ImageClassification(folder))
        assert not (tmp_path / "logs").exists()

    def test_is_called_output_size_by_a_sequence_model(self, folder, tmp_path):
        trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False)
        with pytest.raises(ProjUNNError, match="output_size of SequenceModel is 9, and the data has 4 classes"):
            trainer.fit(SequenceModel(1, 9, 8, output="last"), datamodule=PixelSequence(folder))


class Recorder(BoringModel):
    """Keeps its training batches."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.layer(torch.ones(1)).sum()

    validation_step = test_step = training_step

    def on_test_start(self):
        self.seen = []


def epochs_of(data, count):
    model = Recorder()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=count, limit_val_batches=0, enable_model_summary=False, **options)
    trainer.fit(model, datamodule=data)
    steps = len(model.seen) // count
    return [
        [torch.cat(column) for column in zip(*model.seen[i * steps : (i + 1) * steps], strict=True)]
        for i in range(count)
    ]


class TestEpochs:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_hold_every_image_once_with_its_class_in_a_new_order(self, folder, workers):
        data = PixelSequence(folder, permutation_seed=None, batch_size=8, num_workers=workers)
        (x1, y1), (x2, y2) = epochs_of(data, 2)
        train = data.images["train"]
        expected = train.pixels.flatten(2).mT / 255
        for x, y in ((x1, y1), (x2, y2)):
            order = [int((expected == sample).all(dim=(1, 2)).nonzero()) for sample in x]
            assert sorted(order) == list(range(36))
            assert torch.equal(y, train.labels[order])
        assert not torch.equal(x1, x2)

    def test_augmentation_is_the_same_in_every_run_and_worker(self, folder):
        options = {"crop_padding": 2, "horizontal_flip": True, "batch_size": 8}
        runs = [epochs_of(ImageClassification(folder, num_workers=w, **options), 2) for w in (0, 2)]
        assert all(torch.equal(a[0], b[0]) for a, b in zip(*runs, strict=True))

    def test_augmentation_is_new_for_every_batch_and_epoch(self, folder):
        data = ImageClassification(folder, crop_padding=2, horizontal_flip=True)
        train = data.dataset("train")
        first, second, third = (train.__getitems__(range(36 * e, 36 * e + 20))[0] for e in range(3))
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)
        image = train.images.pixels[:1].expand(36, -1, -1, -1)
        train.images = train.images._replace(pixels=image)
        batches = [train.__getitems__(range(start, start + 18))[0] for start in (0, 18)]
        assert not torch.equal(*batches)

    def test_validation_and_test_images_are_not_augmented(self, folder):
        data = ImageClassification(folder, crop_padding=2, horizontal_flip=True, batch_size=5)
        plain = ImageClassification(folder, batch_size=5)
        for name in ("val", "test", "predict"):
            loaders = [getattr(d, f"{name}_dataloader")() for d in (data, plain)]
            assert all(torch.equal(a, b) for (a, _), (b, _) in zip(*loaders, strict=True))
