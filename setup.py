"""Puts the repository's configs into the package; all else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies ``configs/`` beside the modules of an installed package; an editable one reads the repository's.

    setuptools' own way, a ``package-dir`` for them, would make editable installations by an import hook, in which type
    checkers find nothing.
    """

    def run(self):
        """Build as always, and add the configs that run without the repository's ``examples/``."""
        super().run()
        if not self.editable_mode:
            into = Path(self.build_lib, "projunn_lightning", "configs")
            copytree("configs", into, ignore=ignore_patterns("own_model.yaml"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
