"""What ``projunn --help`` and the help of its commands say."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

COMMANDS = {
    "fit": "Train a model, then test it.",
    "validate": "Evaluate a model on the validation data.",
    "test": "Evaluate a model on the test data, beside the task's baseline.",
    "predict": "Compute a model's predictions.",
    "compare": "Train several cells on one task, side by side.",
    "configs": "List the configs that come with the package.",
}

_PROJUNN = """\
Train networks whose weights stay orthogonal or unitary, by projUNN.

  projunn configs                what there is to run
  projunn fit --config copying   runs it: a unitary RNN, in about two minutes
  projunn fit --help             options of the model, the data and the method"""

_CLASSES = """\
{what}

A config sets the options, those after it change them:

  projunn configs
  projunn {command} --config copying
  projunn {command} --config copying --trainer.accelerator cpu --projunn.rank 4
  projunn {command} --config copying --print_config

The last prints every option with its value, as YAML. Those of a class are shown
by its name:

  projunn {command} --model.help SequenceModel
  projunn {command} --data.help CopyingMemory
  projunn {command} --optimizer.help torch.optim.RMSprop"""

_GROUPS = {
    "model": "model, the network",
    "data": "data, the task",
    "projunn": "projunn, the method",
    "optimizer": "optimizer",
    "lr_scheduler": "lr_scheduler",
    "trainer": "trainer: length, devices, logging and all else of Lightning's Trainer",
}


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of a description as they are."""


def arrange(parser: LightningArgumentParser) -> None:
    """Give the groups of options titles that fit a line, and show the longest last."""
    groups = parser.groups or {}
    for name, group in groups.items():
        group.title = _GROUPS.get(name, "checkpoint and other arguments")
    parser._action_groups = sorted(parser._action_groups, key=lambda group: group is groups["trainer"])


def parser_options(commands: Iterable[str]) -> dict[str, Any]:
    """``parser_kwargs`` of the LightningCLI, for the command and for each of its subcommands."""
    options: dict[str, Any] = {"prog": "projunn", "description": _PROJUNN, "formatter_class": HelpFormatter}
    for command in commands:
        options[command] = {
            "usage": f"projunn {command} [--config CONFIG] ... [--OPTION VALUE] ...",
            "description": _CLASSES.format(command=command, what=COMMANDS[command]),
        }
    return options
