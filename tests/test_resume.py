"""A run that was interrupted and resumed ends with the same bits as a run that was not interrupted."""

from multiprocessing import get_context
from signal import SIGKILL

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from projunn_lightning import ProjUNN, SequenceModel
from projunn_lightning.functional import unitarity_error
from projunn_lightning.functional.sampling import SAMPLERS
from tests.support.distributed_runs import QUIET, fitted, resumable, small
from tests.support.world import World

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled"),
]
TWO = {"strategy": "ddp", "devices": 2}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sampler", SAMPLERS)
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


def run_of_12_steps(ckpt=None, callbacks=(), workers=0, model_class=None, **options):
    """A trainer and the weights after epochs of four batches."""
    model, data = small(160)
    if model_class is not None:
        model.__class__ = model_class
    data.num_workers = workers
    options = {"max_steps": 12, "limit_val_batches": 0, **QUIET, "enable_checkpointing": bool(callbacks), **options}
    trainer = Trainer(accelerator="cpu", callbacks=[ProjUNN(rank=2), *callbacks], **options)
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    return trainer, {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("limit", [4, 3])
@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_ended_twice_by_max_steps(steps, limit, tmp_path):
    expected = run_of_12_steps(limit_train_batches=limit)[1]
    ckpt = None
    for number, end in enumerate((steps, 9)):
        trainer, _ = run_of_12_steps(ckpt, max_steps=end, limit_train_batches=limit)
        trainer.save_checkpoint(ckpt := tmp_path / f"{number}.ckpt")
    assert same(run_of_12_steps(ckpt, limit_train_batches=limit)[1], expected)


class InterruptedAt(Callback):
    """An error in the middle of a step, when the next batches may have been fetched already."""

    def __init__(self, step):
        self.step = step

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("interrupted")


class KnowsItsSteps(SequenceModel):
    """Asks for the number of steps before Lightning has restored its counts."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches == 12
        return super().configure_optimizers()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")
@pytest.mark.parametrize(("workers", "model_class"), [(0, None), (2, None), (0, KnowsItsSteps)])
@pytest.mark.parametrize("step", [2, 3, 4, 7])
def test_interrupted_by_an_error_after_a_batch_was_fetched(step, workers, model_class, tmp_path):
    options = {"workers": workers, "model_class": model_class}
    saves = ModelCheckpoint(tmp_path, save_on_exception=True, every_n_train_steps=100)
    with pytest.raises(RuntimeError, match="interrupted"):
        run_of_12_steps(callbacks=[saves, InterruptedAt(step)], **options)
    (ckpt,) = tmp_path.glob("*.ckpt")
    assert torch.load(ckpt)["global_step"] == step
    assert same(run_of_12_steps(ckpt, **options)[1], run_of_12_steps()[1])


def test_killed_in_the_middle_of_an_epoch(tmp_path):
    expected = resumable(tmp_path / "unbroken", "subspace")
    process = get_context("spawn").Process(target=resumable, args=(tmp_path, "subspace"), kwargs={"kill_at": 6})
    process.start()
    process.join(120)
    assert process.exitcode == -SIGKILL
    assert not (tmp_path / "step=7.ckpt").exists()
    assert same(resumable(tmp_path / "resumed", "subspace", tmp_path / "step=6.ckpt"), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
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
