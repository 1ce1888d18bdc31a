"""Runs of the ``projunn`` command in the process of the tests."""

import contextlib
import io
import re
import sys
from pathlib import Path

import yaml

from projunn_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
TINY = yaml.safe_load("""
seed_everything: 7
model: {class_path: SequenceModel, init_args: {input_size: 6, output_size: 5, hidden_size: 8}}
data: {class_path: CopyingMemory, init_args: {delay: 3, memory_length: 2, alphabet_size: 4, batch_size: 4,
  train_size: 8, val_size: 4, test_size: 4}}
optimizer: {class_path: torch.optim.RMSprop, init_args: {lr: 0.002}}
lr_scheduler: {class_path: torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.5}}
projunn: {rank: 1}
trainer: {accelerator: cpu, max_epochs: 1, max_steps: 1, log_every_n_steps: 1, logger: false,
  enable_checkpointing: false, enable_progress_bar: false, enable_model_summary: false}
""")
"""A config that runs in a tenth of a second and writes no file."""


def changed(**parts):
    """The tiny config with other parts. The options of the trainer are added to those of the tiny config."""
    trainer = TINY["trainer"] | parts.pop("trainer", {})
    return TINY | parts | {"trainer": trainer}


def named(class_path, **init_args):
    """The part of a config that names a class."""
    return {"class_path": class_path, "init_args": init_args}


def ended(*args):
    """Run ``projunn`` with the arguments, and return its exit status, standard output and standard error.

    A dictionary among the arguments is passed as ``--config``. An exception other than SystemExit is raised.
    """
    out, err = io.StringIO(), io.StringIO()
    argv, path = sys.argv, list(sys.path)
    sys.argv = ["projunn", *(word for arg in args for word in _words(arg))]
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.argv, sys.path[:] = argv, path
    return status, out.getvalue(), err.getvalue()


def _words(arg):
    return ["--config", yaml.safe_dump(arg, allow_unicode=True)] if isinstance(arg, dict) else [str(arg)]


def run(*args):
    """Run ``projunn`` and return what it prints. It must end well."""
    status, out, err = ended(*args)
    assert not status, err
    return out


def refused(*args):
    """Run ``projunn`` and return the error that it ends with. It must be one of this package or of the parser."""
    status, _, err = ended(*args)
    assert status == 2, err
    return error_in(err)


def error_in(err):
    """The last error in the standard error of a refused command. There must be one, and no traceback."""
    assert "Traceback" not in err
    starts = [match.start() for match in re.finditer(r"^(projunn[\w ]*: )?error: \S", err, re.MULTILINE)]
    assert starts, err
    return err[starts[-1] :]
