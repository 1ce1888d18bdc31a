"""The ``projunn`` command. ``main.py`` lists its subcommands."""

from projunn_lightning.cli.app import ProjUNNCLI, run_cli

__all__ = ["ProjUNNCLI", "run_cli"]
