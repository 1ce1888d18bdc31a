"""The ``projunn`` command: its subcommands, and how it says that an input cannot be used."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable

from jsonargparse import set_parsing_settings

from projunn_lightning.cli import compare, configs, plot
from projunn_lightning.cli.app import Command, run_cli
from projunn_lightning.errors import ProjUNNError


def _lightning_command(name: str) -> Callable[[list[str]], object]:
    return lambda arguments: run_cli([name, *arguments], commands=COMMANDS)


COMMANDS: dict[str, Command] = {
    "fit": Command("Train a model, then test it.", _lightning_command("fit")),
    "validate": Command("Evaluate a model on the validation data.", _lightning_command("validate")),
    "test": Command("Evaluate a model on the test data, beside the task's baseline.", _lightning_command("test")),
    "predict": Command("Compute a model's predictions.", _lightning_command("predict")),
    "compare": Command("Train several recurrent layers on one task.", compare.run, compare.add_arguments),
    "plot": Command("Draw the curves of several runs.", plot.run, plot.add_arguments),
    "configs": Command("List the configs that come with the package.", configs.run),
}
"""The subcommands of ``projunn``. A new one is a file in this folder and a line here."""


def main() -> None:
    """Run the command line of ``sys.argv``. An input that cannot be used ends it with one line and the status 2."""
    set_parsing_settings(add_print_completion_argument=True)
    sys.path.insert(0, os.getcwd())  # a config may name a class of the user's own, as under `python -m`
    _silence_what_a_user_cannot_act_on()
    try:
        _run(sys.argv[1:])
    except ProjUNNError as error:
        if "PROJUNN_TRACEBACK" in os.environ:
            raise
        print(f"projunn: error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(arguments: list[str]) -> None:
    if arguments and arguments[0] in COMMANDS:
        COMMANDS[arguments[0]].run(arguments[1:])
    else:  # --help, --print_completion, or --config before the subcommand
        run_cli(arguments, commands=COMMANDS)


def _silence_what_a_user_cannot_act_on() -> None:
    # Arguments are always passed on from sys.argv.
    warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended to run from within Python")
    # Each run has a log folder of its own, also one that tests the checkpoint of another run.
    warnings.filterwarnings("ignore", "The dirpath has changed from.*")
    # A checkpoint of a run with averages is tested: it holds the averages as the weights of the model.
    warnings.filterwarnings("ignore", "You're using the WeightAveraging callback, but loading a checkpoint outside")
    # A comparison goes on where it was interrupted.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 on torch 2.13.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*", FutureWarning)
    # The models do not write to the output of a layer in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # Advertisements for other products.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "Tip: For" not in r.getMessage())
