"""Configs with bad values in any place: the command runs, or says in its last lines what it refuses."""

import contextlib
import copy
import inspect
import io
import math
import re
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer

from projunn_lightning import CopyingMemory, ProjUNN, SequenceModel
from projunn_lightning.cli import main

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

# More devices, nodes and workers start processes or wait for them, a root folder may lie anywhere, plugins and
# strategies set up the process for good, `auto` would look for other accelerators, and more epochs take long.
LEFT_OUT = {
    "devices",
    "num_nodes",
    "num_workers",
    "default_root_dir",
    "plugins",
    "strategy",
    "accelerator",
    "max_epochs",
}


def options(of):
    return set(inspect.signature(of.__init__).parameters) - {"self"} - LEFT_OUT


INIT = {
    "model": options(SequenceModel),
    "data": options(CopyingMemory),
    "optimizer": {"lr", "alpha", "eps", "weight_decay", "momentum", "centered", "foreach", "differentiable"},
    "lr_scheduler": {"gamma", "last_epoch"},
}
PATHS = sorted(
    [("trainer", name) for name in options(Trainer)]
    + [("projunn", name) for name in options(ProjUNN)]
    + [(part, "init_args", name) for part, names in INIT.items() for name in (*names, "unknown")]
    + [(part, name) for part in INIT for name in ("class_path", "init_args", "dict_kwargs", "unknown")]
    + [(part,) for part in (*TINY.keys() - {"trainer"}, "ckpt_path", "weights_only", "unknown", "config")]
)
SIZES = {"input_size", "output_size", "hidden_size", "num_layers", "delay", "memory_length"}
SIZES |= {"alphabet_size", "batch_size", "train_size", "val_size", "test_size"}

SMALL = [0, 1, -1, -7, 2, 3, 17]
HUGE = [10**6, 2**31, 2**63, -(10**30), 10**30]  # a size of a million is no mistake that could be seen: memory decides
FLOATS = [0.0, 0.5, -0.5, 5.5, 1e-300, 1e300, math.nan, math.inf, -math.inf]
TEXTS = ["", " ", "x", "é☃", "x" * 300, "*", "nan", "true", "-1", "a/b", "..", "modrelu", "bf16-true", "no.such.Thing"]
TEXTS += ["torch.nn.Linear", "torch.optim.Adam", "SequenceModel", "EarlyStopping", "lightning.LightningModule"]
ODD = [None, True, False, [], [1], [None], ["a", 1], {}, {"a": 1}, {1: 2}, {"class_path": "x"}, {"class_path": None}]
ODD += [{"class_path": "EarlyStopping", "init_args": {"monitor": "nothing"}}, {"init_args": {}}]


@st.composite
def mutations(draw):
    """One to three places, what is done there, and the value that is put there."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(PATHS))
        bounded = path[-1] in SIZES or path[-1] == "max_steps"
        numbers = (SMALL if bounded else SMALL + HUGE) + FLOATS
        value = draw(st.one_of(st.sampled_from(numbers), st.sampled_from(TEXTS), st.sampled_from(ODD)))
        found.append((path, draw(st.sampled_from(["set"] * 8 + ["delete", "rename"])), value))
    return found


def mutated(changes):
    config = copy.deepcopy(TINY)
    for (*above, key), what, value in changes:
        node = config
        for name in above:
            node = node.setdefault(name, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):  # an earlier change has put something else there
            continue
        if what == "set":
            node[key] = copy.deepcopy(value)
        elif key in node:
            old = node.pop(key)
            if what == "rename":
                node[f"{key}s"] = old
    return config


def said(config, *arguments):
    """What the command refuses with, or None where it runs; fails on any other end."""
    argv, path, err = sys.argv, list(sys.path), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path("fuzz.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config, allow_unicode=True))
        sys.argv = ["projunn", *(arguments or ["fit"]), "--config", "fuzz.yaml"]
        try:
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
                main()
        except SystemExit as stop:
            return refusal_in(err.getvalue(), stop.code)
        finally:
            sys.argv, sys.path[:] = argv, path
            torch.use_deterministic_algorithms(False)
            torch.autograd.set_detect_anomaly(False)
    return None


def refusal_in(err, code):
    """The last error among the lines, and what follows it; there must be one, and no traceback."""
    assert code == 2
    assert "Traceback" not in err
    starts = [match.start() for match in re.finditer(r"^(projunn: )?error: \S", err, re.MULTILINE)]
    assert starts, err
    return err[starts[-1] :]


def names(message, changes):
    """Whether a message names a part of a config that was changed, its class, or the value found."""
    words = set()
    for path, _, value in changes:
        words |= {*path} - {"init_args", "dict_kwargs"}
        words |= {str(value)} if str(value).strip() else set()
        words |= {"Trainer", "trainer"} if path[0] == "trainer" else set()
        words |= INIT["model"] if path[0] in ("model", "data") else set()  # sizes that do not fit together
        part = TINY.get(path[0])
        if isinstance(part, dict) and "class_path" in part:
            words |= {part["class_path"].rpartition(".")[2], part["class_path"].rpartition(".")[2].lower()}
    return any(word in message for word in words)


def runs_or_refuses(changes):
    config = mutated(changes)
    message = said(config)
    assert message is None or names(message, changes), message


class TestBadValues:
    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(mutations())
    def test_anywhere_in_a_config_run_or_are_refused_by_name(self, changes):
        runs_or_refuses(changes)

    @pytest.mark.slow
    @settings(max_examples=3000, suppress_health_check=[HealthCheck.too_slow])
    @given(mutations())
    def test_anywhere_in_a_config_run_or_are_refused_by_name_at_length(self, changes):
        runs_or_refuses(changes)
