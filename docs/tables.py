"""Tables of the registries and settings of the package, as a hook of mkdocs.

A marker such as ``<!-- table: functional.SAMPLERS -->`` in a page names an object in ``projunn_lightning``. If the
object is a registry, a dictionary by name, its table has the name and the summary of each entry. If it is a dataclass,
its table has the name, the default and the description of each field.
"""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
from collections.abc import Iterable
from typing import Any

from docstring_parser import parse
from docstrings import link_roles  # the file beside this one, whose folder mkdocs puts on the path

MARKER = re.compile(r"^<!-- table: ([\w.]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers in a page by tables. mkdocs calls this function for each page."""
    return MARKER.sub(lambda marker: table(marker[1]), markdown)


def table(path: str) -> str:
    """The Markdown table of a registry or of a dataclass, by its path in the package."""
    described = pkgutil.resolve_name(f"projunn_lightning.{path}")
    if dataclasses.is_dataclass(described):
        texts = {argument.arg_name: argument.description for argument in parse(described.__doc__ or "").params}
        fields = ((f"`{f.name}`", f"`{f.default!r}`", texts[f.name] or "") for f in dataclasses.fields(described))
        return _markdown(("setting", "default", "meaning"), fields)
    return _markdown(("name", "summary"), ((f"`{name}`", summary(entry)) for name, entry in described.items()))


def summary(entry: Any) -> str:
    """The summary of an entry: the first paragraph of a class's or function's docstring, or else ``entry.summary``."""
    if inspect.isclass(entry) or inspect.isfunction(entry):
        return (inspect.getdoc(entry) or "").partition("\n\n")[0]
    return str(entry.summary)


def _markdown(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (heads, ("---",) * len(heads), *rows)
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return link_roles(" ".join(text.split())).replace("|", r"\|")
