"""The ``projunn`` command."""

from projunn_lightning.cli.app import ProjUNNCLI, main, run_cli

__all__ = ["ProjUNNCLI", "main", "run_cli"]
