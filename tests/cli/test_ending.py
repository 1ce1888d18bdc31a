"""The last lines of ``projunn fit``, and which weights it tests."""

import re
from pathlib import Path

import pytest
import torch

from projunn_lightning.cli.ending import result_line
from tests.support.commands import changed, named, run

pytestmark = pytest.mark.filterwarnings("ignore:no parameter is declared orthogonal:UserWarning")
GROWING = {
    "model": {"class_path": "tests.support.own_models.Passes"},
    "data": named("AddingProblem", length=4, train_size=2, val_size=1, test_size=1, batch_size=1),
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 3,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}
"""A run whose weight is 2, 4 and 6 after its epochs of two steps. The first of them is the best."""


def fit(*args, **trainer):
    """The last lines of a run, from the one that says why it stopped on."""
    out = run("fit", GROWING | {"trainer": GROWING["trainer"] | trainer}, *args)
    return out[out.index("Training stopped") :].splitlines()


def result_of(lines):
    """The test loss and the line that says of which weights it is."""
    (index,) = (index for index, line in enumerate(lines) if line.startswith("test loss"))
    return float(lines[index].split()[2]), lines[index + 1].strip()


def weights(version=0, name="best"):
    return torch.load(f"lightning_logs/version_{version}/checkpoints/{name}.ckpt", weights_only=True)


class TestTheLastLines:
    def test_say_why_it_stopped_how_it_went_where_it_is_and_what_to_type_next(self):
        first, second, *rest = fit()
        assert re.fullmatch(r"Training stopped at step 6 in epoch 2, after 0:00:\d\d: max_epochs=3 is reached\.", first)
        assert second == "The last val/loss is 16 (step 6), the best 0 (step 2)."
        folder = "lightning_logs/version_0"
        assert rest == [
            "test loss 2",
            f"  of the best checkpoint, {folder}/checkpoints/best.ckpt",
            f"log: {folder}",
            f"checkpoints: {folder}/checkpoints (best.ckpt, last.ckpt)",
            "to see the curves: tensorboard --logdir lightning_logs",
            f"to predict: projunn predict --run {folder}",
        ]

    def test_give_a_line_that_predicts(self):
        run("fit", changed(trainer={"logger": True, "enable_checkpointing": True}))
        folder = "lightning_logs/version_0"
        run("predict", "--config", f"{folder}/config.yaml", "--ckpt_path", f"{folder}/checkpoints/best.ckpt")

    @pytest.mark.parametrize(
        ("trainer", "why"),
        [
            ({"max_steps": 3}, "max_steps=3 is reached"),
            ({"max_epochs": -1, "max_time": "00:00:00:01"}, "max_time is reached"),
            (
                {"callbacks": [named("EarlyStopping", monitor="val/loss", patience=1)]},
                "val/loss has not improved in the last 1 checks, which is the patience (EarlyStopping)",
            ),
            (
                {"callbacks": [named("EarlyStopping", monitor="val/loss", stopping_threshold=0.5)]},
                "val/loss has reached the stopping_threshold 0.5 (EarlyStopping)",
            ),
            (
                {"callbacks": [named("EarlyStopping", monitor="val/loss", divergence_threshold=3.5)]},
                "val/loss is beyond the divergence_threshold 3.5 (EarlyStopping)",
            ),
        ],
        ids=str,
    )
    def test_name_the_cause_of_the_end(self, trainer, why):
        assert fit(**trainer)[0].endswith(f": {why}.")


class TestTheTestedWeights:
    def test_are_the_best_although_later_ones_are_worse(self):
        assert result_of(fit()) == (2, "of the best checkpoint, lightning_logs/version_0/checkpoints/best.ckpt")
        assert weights()["state_dict"]["w"] == 2
        assert weights(name="last")["state_dict"]["w"] == 6

    def test_are_the_best_of_a_model_that_calls_its_loss_val_loss(self):
        assert result_of(fit("--model.validation", "val_loss"))[0] == 2

    @pytest.mark.parametrize(
        ("trainer", "why"),
        [
            ({"enable_checkpointing": False}, "the run saved no checkpoint"),
            ({"callbacks": [named("ModelCheckpoint")]}, "the checkpoint callback monitors no metric"),
            ({"limit_val_batches": 0}, "the run logged no val/loss, by which the best would be chosen"),
        ],
        ids=str,
    )
    def test_are_the_last_if_no_checkpoint_is_the_best(self, trainer, why):
        assert result_of(fit(**trainer)) == (6, f"of the last weights: {why}")

    def test_are_the_last_of_a_fast_dev_run(self):
        assert result_of(fit(fast_dev_run=1)) == (1, "of the last weights: a fast_dev_run saves no checkpoint")

    def test_are_the_best_by_the_monitor_that_the_user_has_chosen(self):
        own = named("ModelCheckpoint", monitor="val/growth", mode="max", filename="grown")
        lines = fit(callbacks=[own])
        assert lines[1] == "The last val/growth is 6 (step 6), the best 6 (step 6)."
        assert result_of(lines) == (6, "of the best checkpoint, lightning_logs/version_0/checkpoints/grown.ckpt")

    @pytest.mark.parametrize(
        "own", [[], [named("ModelCheckpoint", monitor="val/loss", filename="best", save_last=True)]]
    )
    def test_are_the_best_of_the_whole_run_after_it_was_resumed_twice(self, own):
        before = "lightning_logs/version_0/checkpoints"
        fit(callbacks=own)
        for version in (1, 2):
            last = f"lightning_logs/version_{version - 1}/checkpoints/last.ckpt"
            lines = fit("--ckpt_path", last, max_epochs=3 + version, callbacks=own)
            assert lines[1].endswith("the best 0 (step 2).")
            assert result_of(lines) == (2, f"of the best checkpoint, {before}/best.ckpt")
        assert Path(before, "best.ckpt").exists()

    def test_are_the_last_if_the_best_checkpoint_of_a_resumed_run_is_gone(self):
        fit()
        gone = "lightning_logs/version_0/checkpoints/best.ckpt"
        Path(gone).unlink()
        lines = fit("--ckpt_path", "lightning_logs/version_0/checkpoints/last.ckpt", max_epochs=4)
        assert result_of(lines) == (8, f"of the last weights: the best checkpoint, {gone}, is no longer there")

    def test_are_averages_where_averages_are_validated_and_saved(self):
        average = named("lightning.pytorch.callbacks.EMAWeightAveraging", decay=0.5)
        loss, which = result_of(fit(callbacks=[average]))
        assert which.endswith("best.ckpt")
        saved = weights()
        assert loss == pytest.approx(float(saved["state_dict"]["w"]), rel=1e-2)
        assert loss != pytest.approx(float(saved["current_model_state"]["w"]), rel=1e-2)


class TestTheBaseline:
    @pytest.mark.parametrize(
        ("loss", "shown"),
        [
            (0.001, "test loss 0.001  (baseline 0.2; 0.5 % of it)"),
            (0.4, "test loss 0.4  (baseline 0.2; 200 % of it)"),
            (73.4, "test loss 73.4  (baseline 0.2; more than 10 times it)"),
            (1e-7, "test loss 1e-07  (baseline 0.2; below 0.01 % of it)"),
            (float("nan"), "test loss nan  (baseline 0.2)"),
        ],
    )
    def test_is_compared_by_a_percentage_where_one_says_something(self, loss, shown):
        assert result_line({"test/loss": torch.tensor(loss)}, 0.2) == shown

    def test_is_not_compared_with_the_loss_of_a_model_that_says_that_it_is_another_one(self):
        assert "test loss 2" in fit()
