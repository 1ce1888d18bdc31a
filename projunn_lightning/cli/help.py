"""The texts that ``projunn --help`` and the help of LightningCLI's subcommands show."""

from __future__ import annotations

import difflib
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from projunn_lightning._compat import show_last, subcommands

_PROJUNN = """\
Train networks whose weights stay orthogonal or unitary, by projUNN.

  projunn configs                lists the configs that can be run
  projunn fit --config copying   runs one: a unitary RNN, in about two minutes
  projunn fit --help             options of the model, the data and the method"""

_SUBCOMMAND = """\
{summary}

A config sets the options, and the options after it change them:

  projunn configs
  projunn {name} --config copying
  projunn {name} --config copying --trainer.accelerator cpu --projunn.rank 4
  projunn {name} --config copying --print_config

The last command prints every option with its value, as YAML. The options of a
class are shown by its name:

  projunn {name} --model.help SequenceModel
  projunn {name} --data.help CopyingMemory
  projunn {name} --optimizer.help torch.optim.RMSprop"""

_GROUPS = {
    "model": "model, the network",
    "data": "data, the task",
    "projunn": "projunn, the method",
    "optimizer": "optimizer",
    "lr_scheduler": "lr_scheduler",
    "trainer": "trainer: length, devices, logging and all other options of Lightning's Trainer",
}


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the line breaks of a description as they are."""


class Parser(LightningArgumentParser):
    """The parser of LightningCLI. Its errors are one line, and an error about an unknown option names similar ones."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message in one line, and exit with the status 2."""
        if not self.exit_on_error:  # the parser of the options of a class; the parser of the command is told
            super().error(message, ex)
        message = in_one_line(message)
        for unknown in re.findall(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message):
            if similar := difflib.get_close_matches("".join(unknown), self._options(), cutoff=0.8):
                message += f"; near misses: {', '.join(similar)}"
        self.exit(2, f"projunn: error: {message}\n")

    def _options(self) -> list[str]:
        """The names of the options of this parser or, if it has subcommands, of all its subcommands."""
        action = subcommands(self)
        parsers = action.choices.values() if action else [self]
        defaults = [vars(parser.get_defaults(skip_validation=True).as_flat()) for parser in parsers]
        return sorted(set().union(*defaults))


def in_one_line(message: str) -> str:
    r"""An error of jsonargparse in one line. An error about the type of a value names the option, types and value only.

    >>> in_one_line('Parser key "projunn.seed":\n  Expected a <class \'int\'>. Got value: x')
    'projunn.seed must be int, found x'
    """
    option = ".".join(re.findall(r'Parser key "([^"]+)":', message))
    expected = re.findall(r"Expected an? (.+?)(?:\. Got value| but |, but |: |$)", message, re.MULTILINE)
    found = re.findall(r"(?:Given|Got) value: (.*)$", message, re.MULTILINE)
    kinds = [re.sub(r"<class '(.+)'>", r"\1", kind).removeprefix("typing.") for kind in dict.fromkeys(expected)]
    kinds = [kind for kind in kinds if kind not in ("NoneType", "path")]  # null, and a file that holds the value
    if option and kinds and found:
        return f"{option} must be {' or '.join(kinds)}, found {found[0]}"
    return " ".join(message.split())


def arrange(parser: LightningArgumentParser) -> None:
    """Give the groups of options titles that fit a line, and show the longest group last."""
    groups = parser.groups or {}
    for name, group in groups.items():
        group.title = _GROUPS.get(name, "checkpoint and other arguments")
    show_last(parser, groups["trainer"])


def parser_options(names: Iterable[str], summaries: Mapping[str, str]) -> dict[str, Any]:
    """The ``parser_kwargs`` of the LightningCLI: options of its parser, and of the parser of each subcommand.

    Args:
        names: the subcommands of the LightningCLI.
        summaries: the first line of the help of each subcommand.
    """
    options: dict[str, Any] = {"prog": "projunn", "description": _PROJUNN, "formatter_class": HelpFormatter}
    for name in names:
        options[name] = {
            "usage": f"projunn {name} [--config CONFIG] ... [--OPTION VALUE] ...",
            "description": _SUBCOMMAND.format(name=name, summary=summaries.get(name, "")),
        }
    return options
