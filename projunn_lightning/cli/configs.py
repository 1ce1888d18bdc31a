"""The configs that come with the package, by name: ``copying`` is ``configs/copying.yaml``."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from projunn_lightning.errors import ProjUNNError

_HERE = Path(__file__).parents[1]
CONFIGS = next((path for path in (_HERE / "configs", _HERE.parent / "configs") if path.is_dir()), _HERE / "configs")
"""In an installed package beside its modules, in a clone one folder above."""


def find_config(value: str) -> str:
    """The path of the file that ``--config`` names: one of the working folder, or else one of the package's.

    The ending ``.yaml`` may be left out. What is no name at all, as a config itself, comes back as it is.

    Raises:
        ValueError: if there is no such file, with near misses.
    """
    for path in (value, f"{value}.yaml"):
        if os.path.isfile(path):  # of anything at all; pathlib's raises on what is too long for a name
            return path
    configs = {name: path for folder in ("", "*", "compare/*") for name, path in named(folder).items()}
    name = value.removeprefix("configs/").removesuffix(".yaml")
    if name in configs:
        return str(configs[name])
    if re.fullmatch(r"[\w.~/\\-]+", value):
        raise ProjUNNError(
            f"there is no config {value}, neither a file nor one of the package's; {_near(name, configs)}"
        )
    return value


def find_comparison(value: str) -> Path:
    """The folder that ``projunn compare`` names: one of the working folder, or else one of the package's.

    Raises:
        ValueError: if there is no such folder, with near misses.
    """
    if os.path.isdir(value):
        return Path(value)
    name = value.rstrip("/").removeprefix("configs/").removeprefix("compare/")
    comparisons = [path.parent.name for path in named("compare/*").values() if path.stem == "task"]
    if name not in comparisons:
        raise ProjUNNError(f"there is no folder {value}, nor a comparison of that name; {_near(name, comparisons)}")
    return CONFIGS / "compare" / name


def _near(name: str, names: Iterable[str]) -> str:
    """What may have been meant, by the whole name or its last part."""
    last = name.rpartition("/")[2]
    near = [each for each in names if difflib.get_close_matches(last, [each, each.rpartition("/")[2]], cutoff=0.6)]
    near.sort(key=lambda each: -difflib.SequenceMatcher(None, name, each).ratio())
    return f"near misses: {', '.join(near[:3]) or 'none'}; `projunn configs` lists them"


def named(folder: str) -> dict[str, Path]:
    """Configs of the folders that match a pattern, by name: path in ``configs/`` without ``.yaml``."""
    paths = sorted(CONFIGS.glob(f"{folder}/*.yaml" if folder else "*.yaml"))
    return {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in paths}


def description(path: Path) -> str:
    """What a config is: the first line of its header."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def list_configs(arguments: list[str]) -> None:
    """The command line of ``projunn configs``."""
    argparse.ArgumentParser(
        prog="projunn configs", description="List the configs that come with the package, each with what it is."
    ).parse_args(arguments)
    comparisons = {path.parent.name: path for path in named("compare/*").values() if path.stem == "task"}
    _show("Train one: projunn fit --config copying", named(""))
    _show("On top of one: projunn fit --config copying --config strategies/ddp", named("*"))
    _show("Several cells on one task: projunn compare copying_200", comparisons)
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
