"""The texts that ``projunn --help`` and the help of LightningCLI's subcommands show."""

from __future__ import annotations

import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from projunn_lightning._compat import change_help, show_last, subcommands
from projunn_lightning.cli.loggers import needs_folder
from projunn_lightning.cli.messages import in_one_line, option_names
from projunn_lightning.data import TASKS
from projunn_lightning.models import ImageClassifier, SequenceModel, UnitaryMatch

_PROJUNN = """\
Train networks whose weights stay orthogonal or unitary, by projUNN.

  projunn configs                lists the configs that can be run
  projunn fit --config copying   runs one: a unitary RNN, in half a minute
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


_OWN = {"model": [SequenceModel, ImageClassifier, UnitaryMatch], "data": list(TASKS.values())}


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the line breaks of a description as they are."""


class Parser(LightningArgumentParser):
    """The parser of LightningCLI. Its errors are one line, and an error about an unknown option names similar ones."""

    def __init__(self, *args: Any, prog: str = "projunn", **options: Any) -> None:
        super().__init__(*args, prog=prog, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message in one line, and exit with the status 2."""
        if not self.exit_on_error:  # the parser of the options of a class; the parser of the command is told
            super().error(message, ex)
        self.exit(2, f"projunn: error: {in_one_line(message, self._options())}\n")

    def format_help(self, *args: Any, **options: Any) -> str:
        change_help(self, plain)
        return super().format_help(*args, **options)

    def add_class_arguments(
        self, theclass: type, nested_key: str | None = None, *args: Any, **options: Any
    ) -> list[str]:
        """Add the options of a class. A logger that must be told a folder gets that of the default logger."""
        if not needs_folder(theclass):
            return super().add_class_arguments(theclass, nested_key, *args, **options)
        options["skip"] = {*(options.get("skip") or ()), "save_dir"}
        added = super().add_class_arguments(theclass, nested_key, *args, **options)
        name = f"{nested_key}.save_dir" if nested_key else "save_dir"
        text = "The folder in which the logger makes its own. If it is not set, it is default_root_dir of the Trainer."
        self.add_argument(f"--{name}", type=str, default=".", help=text)
        return [name, *added]

    def _options(self) -> list[str]:
        """The names of the options of this parser, or of all its subcommands, and of the package's models and data."""
        action = subcommands(self)
        parsers = action.choices.values() if action else [self]
        defaults = [vars(parser.get_defaults(skip_validation=True).as_flat()) for parser in parsers]
        own = {f"{place}.{name}" for place, kinds in _OWN.items() for kind in kinds for name in option_names(kind)}
        return sorted(own.union(*defaults))


def plain(text: str) -> str:
    """A text without the marks of reStructuredText.

    >>> plain(':class:`~torch.nn.RNN` with ``"relu"``, see `this page <https://pytorch.org>`_')
    'RNN with "relu", see this page (https://pytorch.org)'
    """
    text = re.sub(r":[\w:]+:`~[\w.]*?(\w+)`", r"\1", text)
    text = re.sub(r":[\w:]+:`([^`]+)`", r"\1", text)
    text = re.sub(r"`([^`<]+) <([^`>]+)>`__?", r"\1 (\2)", text)
    return text.replace("``", "")


def arrange(parser: LightningArgumentParser) -> None:
    """Give the groups of options titles that fit a line, and show the longest group last."""
    groups = parser.groups or {}
    for name, group in groups.items():
        group.title = _GROUPS.get(name, "checkpoint and other arguments")
    show_last(parser, groups["trainer"])


def _version() -> str:
    try:
        return version("projunn-lightning")
    except PackageNotFoundError:
        return "of a clone that is not installed"


def parser_options(names: Iterable[str], summaries: Mapping[str, str]) -> dict[str, Any]:
    """The ``parser_kwargs`` of the LightningCLI: options of its parser, and of the parser of each subcommand.

    Args:
        names: the subcommands of the LightningCLI.
        summaries: the first line of the help of each subcommand.
    """
    options: dict[str, Any] = {"prog": "projunn", "description": _PROJUNN, "formatter_class": HelpFormatter}
    options["version"] = _version()
    for name in names:
        options[name] = {
            "usage": f"projunn {name} [--config CONFIG] ... [--OPTION VALUE] ...",
            "description": _SUBCOMMAND.format(name=name, summary=summaries.get(name, "")),
        }
    return options
