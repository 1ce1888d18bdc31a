"""``projunn configs``, and the config files of the package: find them by name, list them, read them.

The config ``copying`` is the file ``configs/copying.yaml``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningCLI
from rich.console import Console
from rich.table import Table

from projunn_lightning.cli.messages import near
from projunn_lightning.errors import ConfigError

MODULES = "The class paths name modules in "
"""The start of a line in the header of a saved config. The folder of the modules follows."""

_HERE = Path(__file__).parents[1]
CONFIGS = next((path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir()), _HERE / "configs")
"""The folder of the package's configs. An installed package holds it; in a clone it stands beside the package."""


def run(arguments: list[str]) -> None:
    """Run ``projunn configs``."""
    argparse.ArgumentParser(
        prog="projunn configs", description="List the configs that come with the package, each with what it is."
    ).parse_args(arguments)
    comparisons = {path.parent.name: path for path in named("compare/*").values() if path.stem == "task"}
    configs = named("") | named("*")
    # A config without a model or data cannot be trained by itself, whichever folder it is in.
    whole = {name: path for name, path in configs.items() if {"model", "data"} <= read_config(path).keys()}
    _show("Train one: projunn fit --config copying", whole)
    overrides = {name: path for name, path in configs.items() if name not in whole}
    _show("On top of one: projunn fit --config copying --config strategies/ddp", overrides)
    _show("Several recurrent layers on one task: projunn compare copying_200", comparisons)
    print(f"The files, with their options and results: {CONFIGS}")


def _show(title: str, configs: dict[str, Path]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True, min_width=max(map(len, configs), default=0))
    table.add_column()
    for name, path in configs.items():
        table.add_row(name, description(path))
    print(title)
    Console(highlight=False, markup=False).print(table)
    print()


def named(folder: str) -> dict[str, Path]:
    """The configs in the folders that match a pattern, by name: the path in ``configs/`` without ``.yaml``."""
    paths = sorted(CONFIGS.glob(f"{folder}/*.yaml" if folder else "*.yaml"))
    return {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in paths}


def description(path: Path) -> str:
    """The first line of the header of a config file, which says what the config is."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def find_config(value: str) -> str:
    """Find the file that ``--config`` names, in the working folder or else among the package's configs.

    The ending ``.yaml`` may be left out. A value that cannot be a name, such as YAML text, is returned as it is.

    Raises:
        ConfigError: if there is no such file; the message lists near misses.
    """
    for path in (value, f"{value}.yaml"):
        if os.path.isfile(path):  # unlike Path.is_file, it accepts a text that is too long for a name
            return path
    configs = {name: path for folder in ("", "*", "compare/*") for name, path in named(folder).items()}
    name = value.removeprefix("configs/").removesuffix(".yaml")
    if name in configs:
        return str(configs[name])
    if re.fullmatch(r"[\w.~/\\-]+", value):
        raise ConfigError(
            f"there is no config {value}, neither a file nor one of the package's; {_near(name, configs)}"
        )
    return value


def find_comparison(value: str) -> Path:
    """Find the folder that ``projunn compare`` names, in the working folder or else among the package's comparisons.

    Raises:
        ConfigError: if there is no such folder; the message lists near misses.
    """
    if os.path.isdir(value):
        return Path(value)
    name = value.rstrip("/").removeprefix("configs/").removeprefix("compare/")
    comparisons = [path.parent.name for path in named("compare/*").values() if path.stem == "task"]
    if name not in comparisons:
        raise ConfigError(f"there is no folder {value}, nor a comparison of that name; {_near(name, comparisons)}")
    return CONFIGS / "compare" / name


def _near(name: str, names: Iterable[str]) -> str:
    """The end of a message: up to three names that resemble ``name``, as a whole or in their last part."""
    return f"near misses: {', '.join(near(name, names, '/')) or 'none'}; `projunn configs` lists them"


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        ConfigError: if the file cannot be read, is no mapping, has a key twice, or names another config; the message
            names the file.
    """
    try:
        config = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: text that is not UTF-8, a 13th month
        raise ConfigError(f"config {path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(
            f"config {path} must be a mapping, such as 'trainer: {{max_epochs: 5}}', found {config!r:.50}"
        )
    for part in (config, *(config.get(command) for command in LightningCLI.subcommands())):
        if isinstance(part, dict) and part.get("config") is not None:
            raise ConfigError(
                f"config {path} names another one, {part['config']}, which only the command line can do: pass "
                f"--config {part['config']} before this one"
            )
    return config


def modules_beside(path: str | Path) -> list[str]:
    """The folders in which the class paths of a config name modules: its own, and those that its header names.

    A run saves its config in another folder than that of the first config. The header keeps the folders of its modules.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    header = itertools.takewhile(lambda line: line.startswith("#"), lines)
    named = [line.removeprefix(f"# {MODULES}") for line in header if line.startswith(f"# {MODULES}")]
    folders = [Path(os.path.abspath(path)).parent, *map(Path, named)]
    return [str(each) for each in folders if any(each.glob("*.py")) or any(each.glob("*/__init__.py"))]


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice. YAML would take the last of the two and not say so."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                raise yaml.YAMLError(f"line {line}: the key {name} stands in line {lines[name]} already")
            lines[name] = line
        return super().construct_mapping(node, deep)


class ConfigFile(ActionConfigFile):
    """The action of ``--config``. It takes the names of the package's configs and checks the file."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: Any) -> None:
        if isinstance(value, str):
            value = find_config(value)
            if os.path.isfile(value):
                read_config(value)
                ConfigFile._find_modules(parser, value)
        ActionConfigFile.apply_config(parser, cfg, dest, value)

    @staticmethod
    def _find_modules(parser: Any, path: str) -> None:
        """Let class paths name modules beside the config, and write their folder into the header of a saved config."""
        for folder in modules_beside(path):
            if folder not in sys.path:
                sys.path.insert(0, folder)
            if (line := f"{MODULES}{folder}") not in parser.dump_header and folder != os.getcwd():
                parser.dump_header = [*parser.dump_header, line]
