"""The file of predictions."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from projunn_lightning import PredictionWriter, ProjUNNError
from tests.support import distributed_runs
from tests.support.fits import Net, trainer

X = torch.arange(40.0).reshape(10, 4)


class Numbered(Net):
    """Predicts the first number of each sample, in a structure that a given function builds."""

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
    assert [file.name for file in path.parent.glob("*")] in ([], [path.name])  # no part of a file is left
    return torch.load(path) if path.exists() else None


def test_holds_the_predictions_of_all_samples(tmp_path):
    assert torch.equal(predictions(tmp_path, Numbered()), X[:, 0])


@pytest.mark.parametrize(
    "structure",
    [lambda x: {"a": x, "b": x[:, None] + 1j}, lambda x: (x, x[:, None] + 1j), lambda x: [(x, x), x + 1]],
    ids=["dict", "tuple", "nested"],
)
def test_has_the_structure_of_a_prediction(tmp_path, structure):
    assert str(predictions(tmp_path, Numbered(structure))) == str(structure(X[:, 0]))


@pytest.mark.filterwarnings("ignore:Your `predict_dataloader`'s sampler has shuffling enabled")
def test_is_in_the_order_of_the_dataset_whatever_the_sampler(tmp_path):
    data = TensorDataset(X)
    shuffled = DataLoader(data, 3, sampler=RandomSampler(data))
    assert torch.equal(predictions(tmp_path, Numbered(), shuffled), X[:, 0])


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_is_in_the_order_of_the_loader_if_samples_have_no_index(tmp_path):
    assert torch.equal(predictions(tmp_path, Numbered(), DataLoader(Stream(), 3)), X[:, 0])


def test_is_a_list_for_several_loaders(tmp_path):
    loaders = [DataLoader(TensorDataset(x), 3) for x in (X, X[:4] + 1)]
    first, second = predictions(tmp_path, Numbered(), loaders)
    assert torch.equal(first, X[:, 0])
    assert torch.equal(second, X[:4, 0] + 1)


@pytest.mark.parametrize(("samples", "share"), [(13, True), (16, True), (13, False)])
def test_is_the_same_for_one_process_and_for_two(world, tmp_path, samples, share):
    options = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": share}  # otherwise both predict all samples
    world(distributed_runs.predicted, tmp_path / "two.pt", samples, **options)
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
        (lambda x: {}, "returned a dict for 3"),
        (lambda x: (x, [None]), "returned a NoneType for 3"),
    ],
    ids=["text", "scalar", "too short", "empty", "nested None"],
)
def test_refuses_predictions_without_an_entry_for_each_sample_after_the_first_batch(tmp_path, structure, message):
    with pytest.raises(ProjUNNError, match=f"predict_step of Numbered {message}"):
        predictions(tmp_path, Numbered(structure))


@pytest.mark.filterwarnings("ignore:predict returned None")
def test_is_not_written_for_none_or_in_a_fast_dev_run(tmp_path):
    assert predictions(tmp_path, Numbered(lambda x: None)) is None
    assert predictions(tmp_path, Numbered(), fast_dev_run=True, logger=None) is None


def test_is_not_written_over_another_file(tmp_path):
    path = tmp_path / "predictions.pt"
    path.write_text("precious")
    with pytest.raises(ProjUNNError, match="which exists: choose another path or remove it"):
        trainer(PredictionWriter(str(path))).predict(Numbered(), DataLoader(TensorDataset(X), 3))
    assert path.read_text() == "precious"


def test_leaves_no_part_of_a_file_if_writing_fails(tmp_path, monkeypatch):
    def fails(predictions, file):
        file.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        predictions(tmp_path, Numbered())
    assert not list((tmp_path / "new").iterdir())
