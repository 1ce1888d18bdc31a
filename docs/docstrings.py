"""Docstrings as Markdown, for mkdocstrings: roles of reStructuredText become links, doctests and tables code blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")
_DOCTEST = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, as its object is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(_fenced, _ROLE.sub(_linked, obj.docstring.value))


def _linked(role: re.Match[str]) -> str:
    """A link where the site has a place for the name, plain code where it has none."""
    short, name = role.groups()
    text = name.rpartition(".")[2] if short else name
    return f'<autoref identifier="{name}" optional><code>{text}</code></autoref>'


def _fenced(doctest: re.Match[str]) -> str:
    indent = doctest[1]
    return f"{indent}```pycon\n{doctest[0]}\n{indent}```"
