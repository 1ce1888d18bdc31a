"""The exchange of the recurrent layer of a config by ``--model.rnn``, or by a later config."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_warn

from projunn_lightning.cli.configs import find_config, read_config
from projunn_lightning.nn import RNNS


def leave_out_options_of_another_layer(model: Namespace, arguments: Sequence[str]) -> None:
    """Set options that an exchanged recurrent layer does not accept back to their defaults, with a warning.

    An option is left out if a config sets it, and a later config or the command line chooses the layer. If both are set
    in the same place, it is a mistake, which the layer refuses.

    Args:
        model: the part of the config that makes the model. It is changed.
        arguments: the arguments of the command, which tell where the options were set.
    """
    options = model.get("init_args") or Namespace()
    if (rnn := options.get("rnn")) not in RNNS:
        return
    places = _places(arguments)
    chosen = max((index for index, names in enumerate(places) if "rnn" in names), default=0)
    fixed = set().union(*places[chosen:])
    kept = fixed.union(RNNS[rnn].options)
    if options.get("nonlinearity") not in RNNS[rnn].nonlinearities:
        kept -= {"nonlinearity"} - fixed
    for name in ("nonlinearity", "init"):
        if name not in kept and options.get(name) is not None:
            _warn(rnn, name, options[name])
            options[name] = None
    own = options.get("rnn_options")
    if own and "rnn_options" not in kept:
        for name in own.keys() - kept:
            _warn(rnn, f"rnn_options.{name}", own[name])
        options["rnn_options"] = {name: value for name, value in own.items() if name in kept}


def _warn(rnn: str, name: str, value: Any) -> None:
    rank_zero_warn(f"model.{name} is left out, found {value!r}: the recurrent layer {rnn!r} does not accept it")


def _places(arguments: Sequence[str]) -> list[set[str]]:
    """The names of the options of the model that each config sets, in their order, and those of the command line."""
    configs, command_line = [], set()
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("-c", "--config"):
            configs.append(_in_config(value if equals else following))
        elif option := re.fullmatch(r"--model\.(?:init_args\.)?(\w+).*", name):
            command_line.add(option[1])
    return [*configs, command_line]


def _in_config(value: str) -> set[str]:
    found = find_config(value)
    config = read_config(found) if os.path.isfile(found) else yaml.safe_load(found)
    model = config.get("model") if isinstance(config, dict) else None
    options = model.get("init_args") if isinstance(model, dict) else None
    return set(options) if isinstance(options, dict) else set()
