"""Runs that were broken off end with the bits of a run that was not."""

from multiprocessing import get_context
from signal import SIGKILL

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from projunn_lightning import ProjUNN
from projunn_lightning.functional import unitarity_error
from tests.support.distributed_runs import QUIET, fitted, resumable
from tests.support.world import World

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled"),
]
TWO = {"strategy": "ddp", "devices": 2}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sampler", ["lsi", "column", "svd", "subspace"])
def test_stopped_after_any_step(sampler, tmp_path):
    expected = resumable(tmp_path, sampler)
    for step in (1, 6, 7, 8):  # within the first epoch, before a validation, after it, and at the end of an epoch
        assert same(resumable(tmp_path / str(step), sampler, tmp_path / f"step={step}.ckpt"), expected), step


@pytest.mark.parametrize(
    "options",
    [{"fresh": True}, {"workers": 2}, {"max_steps": 12}, {"overfit_batches": 4}],
    ids=["fresh samples", "workers", "by steps", "another sampler"],
)
def test_whatever_the_data(options, tmp_path):
    expected = resumable(tmp_path, "lsi", **options)
    for step in (7, 8):
        ckpt = tmp_path / f"step={step}.ckpt"
        assert same(resumable(tmp_path / str(step), "lsi", ckpt, **options), expected), step


def test_ended_within_an_epoch_by_max_steps(tmp_path):
    fitted(16, steps=10, ckpt_to=tmp_path / "half.ckpt")
    assert same(fitted(16, steps=20, ckpt_path=tmp_path / "half.ckpt"), fitted(16, steps=20))


def test_killed_in_the_middle_of_an_epoch(tmp_path):
    expected = resumable(tmp_path / "unbroken", "subspace")
    process = get_context("spawn").Process(target=resumable, args=(tmp_path, "subspace"), kwargs={"kill_at": 6})
    process.start()
    process.join(120)
    assert process.exitcode == -SIGKILL
    assert not (tmp_path / "step=7.ckpt").exists()
    assert same(resumable(tmp_path / "resumed", "subspace", tmp_path / "step=6.ckpt"), expected)


@pytest.mark.parametrize("sampler", ["lsi", "column", "svd", "subspace"])
def test_on_two_ranks(world, sampler, tmp_path):
    expected, other = world(resumable, tmp_path, sampler, **TWO)
    assert same(expected, other)
    for rank in world(resumable, tmp_path / "resumed", sampler, tmp_path / "step=6.ckpt", **TWO):
        assert same(rank, expected)


def test_two_ranks_killed_in_the_middle_of_an_epoch(world, tmp_path):
    expected, _ = world(resumable, tmp_path / "unbroken", "subspace", **TWO)
    doomed = World()
    with pytest.raises(EOFError):
        doomed(resumable, tmp_path, "subspace", kill_at=6, **TWO)
    doomed.close()
    assert not (tmp_path / "step=7.ckpt").exists()
    for rank in world(resumable, tmp_path / "resumed", "subspace", tmp_path / "step=6.ckpt", **TWO):
        assert same(rank, expected)


def test_a_constrained_checkpoint_loads_without_the_constraint_and_back(tmp_path):
    def fit(epochs, callbacks, ckpt=None):
        model = BoringModel()
        options = {"enable_checkpointing": False, **QUIET, "limit_train_batches": 4, "limit_val_batches": 0}
        trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks, **options)
        trainer.fit(model, ckpt_path=ckpt, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return model.layer.weight.detach()

    assert unitarity_error(fit(1, ProjUNN("layer.weight"))) < 1e-6
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        assert unitarity_error(fit(2, [], tmp_path / "1.ckpt")) > 1e-4
    assert unitarity_error(fit(3, ProjUNN("layer.weight"), tmp_path / "2.ckpt")) < 1e-6
