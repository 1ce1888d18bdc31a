"""What holds for every task: its options, its hyperparameters, and the samples of its loaders."""

import re
from functools import partial
from inspect import isabstract, signature

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from projunn_lightning import AddingProblem, CopyingMemory, ProjUNNError
from projunn_lightning.data import TASKS, SyntheticTask, Task
from tests.support.fits import Validated, trainer

BASE = {"seed": 0, "num_workers": 0}
IMAGES = {**BASE, "batch_size": 128, "val_fraction": 0.1, "root": "data", "resize": None}
DEFAULTS = {
    "AddingProblem": {**BASE, "length": 750, "batch_size": 50, "fresh": True}
    | {"train_size": 100_000, "val_size": 1000, "test_size": 10_000},
    "CopyingMemory": {**BASE, "delay": 1000, "memory_length": 10, "alphabet_size": 8, "batch_size": 128, "fresh": True}
    | {"train_size": 512_000, "val_size": 1024, "test_size": 4096},
    "RandomUnitary": {**BASE, "size": 2048, "complex": True, "batch_size": 16}
    | {"train_size": 4096, "val_size": 64, "test_size": 64},
    "PixelSequence": {**IMAGES, "source": "ylecun/mnist", "permutation_seed": 92916},
    "ImageClassification": {**IMAGES, "source": "uoft-cs/cifar10", "standardize": True}
    | {"crop_padding": 0, "horizontal_flip": False},
}


def copied_numbers(width, count, generator):
    numbers = torch.randn(count, width, generator=generator)
    return numbers, numbers[:, :1]


class FirstNumber(SyntheticTask):
    """A task of a user's own.

    Args:
        width: how many numbers a sample has.
        **options: options of SyntheticTask.
    """

    def __init__(self, width: int = 4, *, test_size: int = 6, **options):
        super().__init__(test_size=test_size, **options)
        self.width = width

    def generator(self):
        return partial(copied_numbers, self.width)

    @property
    def baseline_loss(self):
        return 1.0


all_tasks = pytest.mark.parametrize("task", [*TASKS.values(), FirstNumber], ids=lambda task: task.__name__)


def parser_of(task):
    parser = ArgumentParser()
    parser.add_class_arguments(task)
    return parser


@all_tasks
def test_the_command_shows_type_default_and_description_of_every_option(task, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    parser = parser_of(task)
    shown = re.findall(r"^  --(\w+) \S+\s+(\S.*) \(type: .+, default: .+\)$", parser.format_help(), re.MULTILINE)
    names = set(parser.get_defaults().as_dict())
    assert {name for name, description in shown} == names
    declared = {name for kind in task.__mro__ if issubclass(kind, Task) for name in signature(kind).parameters}
    assert declared - names == ({"options", "fresh"} if task.__name__ == "RandomUnitary" else {"options"})


@all_tasks
def test_all_options_are_saved_as_hyperparameters(task):
    assert dict(task().hparams) == parser_of(task).get_defaults().as_dict()
    changed = {"batch_size": 3, "seed": 5}
    assert dict(task(**changed).hparams) == {**task().hparams, **changed}
    assert task(**task(**changed).hparams).hparams == task(**changed).hparams


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_the_published_settings(name):
    assert dict(TASKS[name]().hparams) == DEFAULTS[name]


def test_the_registry_holds_every_task_of_the_package():
    def subclasses(kind):
        return {kind}.union(*map(subclasses, kind.__subclasses__()))

    tasks = {kind for kind in subclasses(Task) if kind.__module__.startswith("projunn_lightning.")}
    assert {kind for kind in tasks if not isabstract(kind)} == set(TASKS.values())
    assert [task.__name__ for task in TASKS.values()] == list(TASKS)


@all_tasks
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, found 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more, found -1"),
    ],
    ids=str,
)
def test_refuses_options_out_of_range(task, option, message):
    with pytest.raises(ProjUNNError, match=message):
        task(**option)


@all_tasks
def test_refuses_an_option_that_does_not_exist(task):
    with pytest.raises(TypeError, match="unexpected keyword argument 'bach_size'"):
        task(bach_size=3)


def test_a_task_of_ones_own_trains_and_is_evaluated():
    data = FirstNumber(batch_size=4, train_size=12, val_size=5)
    assert isinstance(data, LightningDataModule)
    run = trainer()
    run.fit(Validated(), data)
    assert run.global_step == 6
    assert run.num_val_batches == [2]
    assert [len(x) for x, _ in data.val_dataloader()] == [4, 1]
    assert [len(x) for x, _ in data.test_dataloader()] == [4, 2]


@pytest.mark.parametrize("task", [AddingProblem, CopyingMemory])
def test_evaluation_sets_are_the_same_every_time(task):
    data = task(5, batch_size=4, val_size=10, test_size=6)
    for loader, size in ((data.val_dataloader, 10), (data.test_dataloader, 6), (data.predict_dataloader, 6)):
        first, second = (torch.cat([x for x, _ in loader()]) for _ in range(2))
        assert len(first) == size
        assert torch.equal(first, second)
