"""Configs with bad values in any place end in a run, or in an error of this package or of the parser."""

import contextlib
import copy
import io
import math
import warnings

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from projunn_lightning import CopyingMemory, ProjUNN, SequenceModel
from projunn_lightning.cli import run_cli
from projunn_lightning.errors import ProjUNNError
from tests.support.commands import TINY, ended, error_in


def options(of):
    """The names of the options that the command has for a class."""
    names = LightningArgumentParser().add_class_arguments(of, "x", fail_untyped=False)
    return {name.removeprefix("x.") for name in names}


# More devices and workers start processes, a root folder may lie anywhere, plugins and strategies set up the process
# for good, and `auto` would look for other accelerators.
LEFT_OUT = {"devices", "num_nodes", "num_workers", "default_root_dir", "plugins", "strategy", "accelerator"}
OWN = [
    *(("model", "init_args", name) for name in sorted(options(SequenceModel))),
    *(("data", "init_args", name) for name in sorted(options(CopyingMemory) - LEFT_OUT)),
    *(("projunn", name) for name in sorted(options(ProjUNN))),
]
OPTIMIZER = ["lr", "alpha", "eps", "weight_decay", "momentum", "centered", "foreach", "differentiable"]
ALL = [
    *OWN,
    *(("trainer", name) for name in sorted(options(Trainer) - LEFT_OUT)),
    *(("optimizer", "init_args", name) for name in OPTIMIZER),
    ("lr_scheduler", "init_args", "gamma"),
    *((part, name) for part in TINY for name in ("class_path", "init_args", "dict_kwargs", "unknown")),
    *((part,) for part in (*TINY, "unknown")),
]
SIZES = {"input_size", "output_size", "hidden_size", "num_layers", "delay", "memory_length"}
SIZES |= {"alphabet_size", "batch_size", "train_size", "val_size", "test_size"}

SMALL = [0, 1, -1, -7, 2, 3, 17]
HUGE = [10**6, 2**31, 2**63, -(10**30), 10**30]  # not for sizes: whether a million is too much, the memory decides
FLOATS = [0.0, 0.5, -0.5, 5.5, 1e-300, 1e300, math.nan, math.inf, -math.inf]
TEXTS = ["", " ", "x", "é☃", "x" * 300, "*", "nan", "true", "-1", "a/b", "..", "modrelu", "bf16-true", "no.such.Thing"]
TEXTS += ["torch.nn.Linear", "torch.optim.Adam", "SequenceModel", "EarlyStopping", "lightning.LightningModule"]
ODD = [None, True, False, [], [1], [None], ["a", 1], {}, {"a": 1}, {1: 2}, {"class_path": "x"}, {"class_path": None}]
ODD += [{"class_path": "EarlyStopping", "init_args": {"monitor": "nothing"}}, {"init_args": {}}]


@st.composite
def configs(draw, places):
    """The tiny config with other values in one to three of the places."""
    config = copy.deepcopy(TINY)
    for _ in range(draw(st.integers(1, 3))):
        *above, key = draw(st.sampled_from(places))
        kinds = [SMALL, SMALL, SMALL if key in SIZES else HUGE, FLOATS, TEXTS, ODD]
        value = draw(st.one_of(map(st.sampled_from, kinds)))
        node = config
        for name in above:
            node = node.setdefault(name, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):  # otherwise an earlier value stands in the place of the mapping
            node[key] = copy.deepcopy(value)
    return config


def for_many(places, examples, check):
    """Call ``check`` with many configs that have other values in some of the places."""

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(configs(places))
    def checked(config):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(config)

    checked()


@pytest.mark.parametrize("examples", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_an_option_of_this_package_with_a_bad_value_runs_or_is_refused(examples):
    def run_it(config):
        status, _, err = ended("fit", config)
        assert status in (0, 2)
        if status == 2:
            error_in(err)

    for_many(OWN, examples, run_it)


@pytest.mark.parametrize("examples", [20, pytest.param(3000, marks=pytest.mark.slow)])
def test_classes_are_made_of_a_config_with_bad_values_anywhere_or_it_is_refused(examples, monkeypatch):
    monkeypatch.setattr("sys.argv", ["projunn"])

    def make_it(config):
        err, message = io.StringIO(), ""
        try:
            with contextlib.redirect_stderr(err):
                run_cli(["--config", yaml.safe_dump(config, allow_unicode=True)], run=False)
        except SystemExit:
            error_in(err.getvalue())
        except ProjUNNError as error:
            message = str(error)
        finally:
            torch.use_deterministic_algorithms(False)
            torch.autograd.set_detect_anomaly(False)
        assert "\n" not in message

    for_many(ALL, examples, make_it)
