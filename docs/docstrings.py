"""An extension for mkdocstrings that turns docstrings into Markdown.

Roles of reStructuredText become links, and doctests become code blocks.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`(~?)([\w.]+)`")
_DOCTEST = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when its object is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(_fenced, link_roles(obj.docstring.value))


def link_roles(text: str) -> str:
    """Replace each role by a link, or by plain code if the site has no page for the name."""
    return _ROLE.sub(_linked, text)


def _linked(role: re.Match[str]) -> str:
    short, name = role.groups()
    text = name.rpartition(".")[2] if short else name
    return f'<autoref identifier="{name}" optional><code>{text}</code></autoref>'


def _fenced(doctest: re.Match[str]) -> str:
    indent = doctest[1]
    return f"{indent}```pycon\n{doctest[0]}\n{indent}```"
