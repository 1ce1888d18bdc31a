"""``projunn fit`` is stopped in its first epoch, and goes on."""

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
from projunn_lightning.cli import main, run_cli
from tests.support.fits import error

ROOT = Path(__file__).parents[2]
CONFIG = """
model: {class_path: SequenceModel, init_args: {input_size: 6, output_size: 5, hidden_size: 8}}
data: {class_path: CopyingMemory, init_args: {delay: 3, memory_length: 2, alphabet_size: 4, batch_size: 2,
  train_size: 100000}}
trainer: {accelerator: cpu, max_epochs: 1, log_every_n_steps: 1, enable_progress_bar: false,
  logger: {class_path: TensorBoardLogger, init_args: {save_dir: ., name: '', version: run, default_hp_metric: false}}}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_config(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["projunn"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)


def checkpoint(run="run"):
    """The only one of a run, and where it is."""
    (path,) = Path(run, "checkpoints").glob("*.ckpt")
    return path, torch.load(path, weights_only=False)


def terminates(number):
    """A hook that sends this process a signal at the fourth batch."""
    return lambda model, batch, index: os.kill(os.getpid(), number) if index == 3 else None


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.filterwarnings("ignore:.*configure_optimizers` will be overridden by")
@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_a_process_that_gets_a_signal_says_where_its_checkpoint_is_and_another_goes_on_from_it(number, code):
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
        while not any(path.stat().st_size > 2000 for path in Path().glob("run/events*")):
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
    run_cli(["fit", "--config", "config.yaml", *map(str, resume)])
    assert checkpoint("resumed")[1]["global_step"] == steps


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)], ids=str)
def test_the_exit_code_is_that_of_a_failure(number, code, monkeypatch):
    monkeypatch.setattr(SequenceModel, "on_train_batch_start", terminates(number))
    monkeypatch.setattr(sys, "argv", ["projunn", "fit", "--config", "config.yaml"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    assert checkpoint()[1]["global_step"] == (3 if number == signal.SIGINT else 4)


@pytest.mark.parametrize("callbacks", ["ModelCheckpoint", "[ModelCheckpoint]"])
def test_a_checkpoint_callback_that_the_user_configured_stays_as_it_is(callbacks):
    own = callbacks.replace("ModelCheckpoint", "{class_path: ModelCheckpoint}")
    Path("config.yaml").write_text(CONFIG.replace("max_epochs: 1,", f"callbacks: {own},"))
    cli = run_cli(["--config", "config.yaml"], run=False)
    assert len(cli.trainer.checkpoint_callbacks) == 1
    assert not cli.trainer.checkpoint_callback.save_on_exception
