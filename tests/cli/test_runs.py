"""``--run``: the config and the checkpoint of a run, by its folder."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.support.commands import changed, named, refused, run

LOGGED = {"logger": True, "enable_checkpointing": True, "max_steps": 4, "max_epochs": 2}
FOLDER = "lightning_logs/version_0"


def trained(**trainer):
    """Train the tiny config in the working folder, and return the checkpoints."""
    run("fit", changed(trainer=LOGGED | trainer))
    return sorted(Path(FOLDER, "checkpoints").glob("*.ckpt"))


def used(*args, command="test"):
    """The checkpoint that a command with ``--run`` takes, from the config that it saves."""
    before = set(Path("lightning_logs").iterdir())
    run(command, "--run", FOLDER, *args)
    (new,) = set(Path("lightning_logs").iterdir()) - before
    return yaml.safe_load((new / "config.yaml").read_text())


class TestTakes:
    @pytest.mark.parametrize("command", ["validate", "test", "predict"])
    def test_the_config_and_the_only_checkpoint(self, command):
        (checkpoint,) = trained(callbacks=[named("ModelCheckpoint")])
        config = used(command=command)
        assert config["ckpt_path"] == str(checkpoint)
        assert config["data"]["init_args"]["delay"] == 3

    def test_the_best_checkpoint_of_a_run_without_callbacks_of_its_own(self):
        assert [path.name for path in trained()] == ["best.ckpt", "last.ckpt"]
        assert Path(used()["ckpt_path"]).name == "best.ckpt"

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_the_best_checkpoint_although_others_are_there(self, mode):
        callback = named("ModelCheckpoint", monitor="train/loss", mode=mode, save_last=True)
        everything = named("ModelCheckpoint", save_top_k=-1, every_n_epochs=1)
        trained(callbacks=[callback, everything])
        folder = Path(FOLDER, "checkpoints")
        last = torch.load(folder / "last.ckpt", weights_only=True)
        state = next(state for key, state in last["callbacks"].items() if "train/loss" in key)
        assert used()["ckpt_path"] == str(folder / Path(state["best_model_path"]).name)

    def test_the_last_checkpoint_if_no_metric_was_monitored(self):
        checkpoints = trained(callbacks=[named("ModelCheckpoint", save_top_k=-1)])
        os.utime(checkpoints[0])  # the older one has the newer time
        assert [path.name for path in checkpoints] == ["epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt"]
        assert used()["ckpt_path"] == str(checkpoints[1])

    def test_a_folder_that_has_moved(self):
        trained(callbacks=[named("ModelCheckpoint", monitor="train/loss", save_last=True)])
        shutil.move(FOLDER, "moved")
        assert "test loss" in run("test", "--run", "moved")

    @pytest.mark.parametrize("first", [True, False])
    def test_further_options_before_and_behind_it(self, first):
        trained()
        options = ["--data.batch_size", 2, "--trainer.devices", 1]
        args = [*options, "--run", FOLDER] if first else [f"--run={FOLDER}", *options]
        run("test", *args)
        saved = yaml.safe_load(Path("lightning_logs/version_1/config.yaml").read_text())
        assert saved["data"]["init_args"]["batch_size"] == 2
        assert str(saved["trainer"]["devices"]) == "1"

    def test_the_checkpoint_that_is_named_beside_it(self):
        checkpoints = trained(callbacks=[named("ModelCheckpoint", save_top_k=-1)])
        assert used("--ckpt_path", checkpoints[0])["ckpt_path"] == str(checkpoints[0])


class TestRefuses:
    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (None, "--run run is no folder; pass the folder of a run, such as lightning_logs/version_0"),
            ([], "--run run has no config.yaml; pass the folder of a run that `projunn fit` has logged"),
            (["checkpoints/a.ckpt"], "--run run has no config.yaml"),
            (["config.yaml"], "--run run has no .ckpt file in run/checkpoints; pass the folder of a run that `projunn"),
            (["config.yaml", "other/a.ckpt"], "--run run has no .ckpt file in run/checkpoints"),
        ],
        ids=str,
    )
    def test_a_folder_without_a_config_or_a_checkpoint(self, files, message):
        for name in files or []:
            Path("run", name).parent.mkdir(parents=True, exist_ok=True)
            Path("run", name).touch()
        if files is not None:
            Path("run").mkdir(exist_ok=True)
        assert refused("test", "--run", "run").startswith(f"projunn: error: {message}")

    def test_to_choose_between_two_metrics(self):
        callbacks = [named("ModelCheckpoint", monitor=f"train/{m}", filename=m) for m in ("loss", "accuracy")]
        trained(callbacks=callbacks)
        message = refused("test", "--run", FOLDER)
        assert "has a best checkpoint for each of several metrics: accuracy.ckpt, loss.ckpt; choose one" in message

    def test_to_take_another_than_the_best_checkpoint_that_is_gone(self):
        best = named("ModelCheckpoint", monitor="train/loss", filename="best", save_last=True)
        trained(callbacks=[best, named("ModelCheckpoint", save_top_k=-1)])
        Path(FOLDER, "checkpoints", "best.ckpt").unlink()
        assert "has lost its best checkpoint best.ckpt; found epoch=0" in refused("test", "--run", FOLDER)

    def test_the_option_for_fit_and_before_the_subcommand(self):
        assert "unrecognized arguments: --run" in refused("fit", "--run", FOLDER)
        assert "--run needs the subcommand as the first argument" in refused("--config", "{}", "test", "--run", FOLDER)
