"""Predictions in a file."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from projunn_lightning import PredictionWriter
from tests.support import distributed_runs
from tests.support.fits import Net, trainer

X = torch.arange(40.0).reshape(10, 4)


class Numbered(Net):
    """Predicts the first number of each sample, in the structure asked for."""

    def __init__(self, structure=lambda x: x):
        super().__init__()
        self.structure = structure

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return self.structure(batch[0][:, 0])


class Stream(IterableDataset):
    def __iter__(self):
        return iter((x,) for x in X)


def predictions(tmp_path, model, loaders=None, **options):
    path = tmp_path / "new" / "predictions.pt"
    loaders = DataLoader(TensorDataset(X), 3) if loaders is None else loaders
    trainer(PredictionWriter(str(path)), **options).predict(model, loaders)
    assert [file.name for file in path.parent.iterdir()] in ([], [path.name])  # nothing half-written
    return torch.load(path) if path.exists() else None


def test_are_those_of_all_samples_as_the_model_returns_them(tmp_path):
    assert torch.equal(predictions(tmp_path, Numbered()), X[:, 0])


@pytest.mark.parametrize(
    "structure",
    [lambda x: {"a": x, "b": x[:, None] + 1j}, lambda x: (x, x[:, None] + 1j), lambda x: [(x, x), x + 1]],
    ids=["dict", "tuple", "nested"],
)
def test_keep_the_structure_of_a_batch(tmp_path, structure):
    found = predictions(tmp_path, Numbered(structure))
    assert str(found) == str(structure(X[:, 0])).replace("[(", "((", 1).replace("])]", "]))")


@pytest.mark.filterwarnings("ignore:Your `predict_dataloader`'s sampler has shuffling enabled")
def test_are_in_the_order_of_the_dataset_whatever_the_sampler(tmp_path):
    data = TensorDataset(X)
    shuffled = DataLoader(data, 3, sampler=RandomSampler(data))
    assert torch.equal(predictions(tmp_path, Numbered(), shuffled), X[:, 0])


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_are_in_the_order_of_the_loader_where_samples_have_no_index(tmp_path):
    assert torch.equal(predictions(tmp_path, Numbered(), DataLoader(Stream(), 3)), X[:, 0])


def test_of_several_loaders_are_a_list(tmp_path):
    loaders = [DataLoader(TensorDataset(x), 3) for x in (X, X[:4] + 1)]
    first, second = predictions(tmp_path, Numbered(), loaders)
    assert torch.equal(first, X[:, 0])
    assert torch.equal(second, X[:4, 0] + 1)


@pytest.mark.parametrize("samples", [13, 16])
def test_of_several_processes_are_those_of_one(world, tmp_path, samples):
    world(distributed_runs.predicted, tmp_path / "two.pt", samples, strategy="ddp", devices=2)
    distributed_runs.predicted(tmp_path / "one.pt", samples)
    two, one = (torch.load(tmp_path / name) for name in ("two.pt", "one.pt"))
    assert two.shape == (samples, 1)
    torch.testing.assert_close(two, one)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (lambda x: "three", "returned a str for 3 samples; to be written it must return a tensor with an entry for"),
        (lambda x: x.sum(), r"returned a tensor of shape \(\) for 3"),
        (lambda x: {"a": x[:2]}, r"returned a tensor of shape \(2,\) for 3"),
    ],
    ids=["text", "scalar", "too short"],
)
def test_that_are_not_one_a_sample_are_refused_at_the_first_batch(tmp_path, structure, message):
    with pytest.raises(ValueError, match=f"predict_step of Numbered {message}"):
        predictions(tmp_path, Numbered(structure))


@pytest.mark.filterwarnings("ignore:predict returned None")
def test_none_leave_no_file(tmp_path):
    assert predictions(tmp_path, Numbered(lambda x: None)) is None
    assert predictions(tmp_path, Numbered(), fast_dev_run=True, logger=None) is None


def test_are_not_written_over_a_file(tmp_path):
    path = tmp_path / "predictions.pt"
    path.write_text("precious")
    with pytest.raises(ValueError, match="which exists: choose another path or remove it"):
        trainer(PredictionWriter(str(path))).predict(Numbered(), DataLoader(TensorDataset(X), 3))
    assert path.read_text() == "precious"


def test_leave_nothing_where_writing_fails(tmp_path, monkeypatch):
    def fails(predictions, file):
        file.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        predictions(tmp_path, Numbered())
    assert not list((tmp_path / "new").iterdir())
