"""Config files, found and looked at before they are parsed: what YAML would take in silence or say without a name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from projunn_lightning.cli.configs import find_config
from projunn_lightning.errors import ProjUNNError


class ConfigFile(ActionConfigFile):
    """The action of ``--config``; takes names of the package's, refuses what is no mapping or holds a key twice."""

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: Any) -> None:
        if isinstance(value, str):
            value = find_config(value)
            if os.path.isfile(value):
                check_config(Path(value))
        ActionConfigFile.apply_config(parser, cfg, dest, value)


def check_config(path: Path) -> None:
    """Raise a ValueError that names the file, and the line where there is one, unless it is a mapping of options."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ProjUNNError(f"config {path} is no YAML that can be read: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else "a list" if isinstance(root.value, list) else f"{root.value[:30]!r}"
        raise ProjUNNError(f"config {path} must be a mapping, such as 'trainer: {{max_epochs: 5}}', found {found}")
    if any(key.value == "config" for key, _ in root.value):
        raise ProjUNNError(f"config {path} holds the key config, which is for the command line: pass --config twice")
    _check_keys(path, root, [])


def _check_keys(path: Path, node: yaml.Node, above: list[yaml.Node]) -> None:
    """Refuse keys that stand in one mapping twice, of which the last would win, and anchors that hold themselves."""
    line = node.start_mark.line + 1
    if any(node is other for other in above):
        raise ProjUNNError(f"config {path}, line {line}: an anchor refers to itself")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and name != "<<":
                raise ProjUNNError(f"config {path}, line {line}: the key {name} stands in line {seen[name]} already")
            seen[name] = line
            _check_keys(path, value, [*above, node])
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(path, value, [*above, node])
