"""``projunn fit`` is stopped by a signal in its first epoch, and goes on from its checkpoint."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from projunn_lightning import SequenceModel
from projunn_lightning.cli import run_cli
from tests.support.commands import ROOT, ended, run
from tests.support.fits import error

CONFIG = """
model: {class_path: SequenceModel, init_args: {input_size: 6, output_size: 5, hidden_size: 8}}
data: {class_path: CopyingMemory, init_args: {delay: 3, memory_length: 2, alphabet_size: 4, batch_size: 2,
  train_size: 100000, val_size: 2, test_size: 2}}
trainer: {accelerator: cpu, max_epochs: 1, log_every_n_steps: 1, enable_progress_bar: false,
  logger: {class_path: TensorBoardLogger, init_args: {save_dir: ., name: '', version: run, default_hp_metric: false}}}
"""


@pytest.fixture(autouse=True)
def _with_a_config(_in_an_empty_folder):
    Path("config.yaml").write_text(CONFIG)


def checkpoint(version="run"):
    """The path and the contents of the last checkpoint of a run."""
    path = Path(version, "checkpoints", "last.ckpt")
    return path, torch.load(path, weights_only=False)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)], ids=str
)
def test_a_process_says_where_its_checkpoint_is_and_another_run_goes_on_from_it(number, code):
    with (
        subprocess.Popen(
            [sys.executable, "-m", "projunn_lightning", "fit", "--config", "config.yaml"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        deadline = time.monotonic() + 60
        while not any(b"train/loss" in path.read_bytes() for path in Path().glob("run/events*")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "training has not begun"
            time.sleep(0.1)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    path, saved = checkpoint()
    assert process.returncode == code
    assert f"saved checkpoint to ./{path}" in told
    assert "Traceback" not in told
    assert saved["epoch"] == 0
    assert error(saved["state_dict"]["rnn.weight_hh_l0"]) < 1e-5
    steps = saved["global_step"] + 3
    resume = ["--ckpt_path", path, "--trainer.max_steps", steps, "--trainer.logger.version", "resumed"]
    run("fit", "--config", "config.yaml", *resume)
    assert checkpoint("resumed")[1]["global_step"] == steps


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)], ids=str)
def test_the_exit_status_is_that_of_a_failure(number, code, monkeypatch):
    def stop_at_the_fourth_batch(model, batch, index):
        if index == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(SequenceModel, "on_train_batch_start", stop_at_the_fourth_batch)
    assert ended("fit", "--config", "config.yaml")[0] == code
    assert checkpoint()[1]["global_step"] == (3 if number == signal.SIGINT else 4)


@pytest.mark.parametrize("callbacks", ["ModelCheckpoint", "[ModelCheckpoint]"])
def test_a_checkpoint_callback_that_the_user_configured_stays_as_it_is(callbacks, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["projunn"])
    own = callbacks.replace("ModelCheckpoint", "{class_path: ModelCheckpoint}")
    Path("config.yaml").write_text(CONFIG.replace("max_epochs: 1,", f"callbacks: {own},"))
    cli = run_cli(["--config", "config.yaml"], run=False)
    assert len(cli.trainer.checkpoint_callbacks) == 1
    assert not cli.trainer.checkpoint_callback.save_on_exception
