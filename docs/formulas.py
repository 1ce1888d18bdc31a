"""Formulas as MathML, as a hook of mkdocs: the browser renders them itself, without a script, a font or a network."""

from __future__ import annotations

import html
import logging
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.pages import Page

BAR = "<mo>&#x02016;</mo>"  # latex2mathml lets the bars of \\lVert grow, but not those of \\|; in TeX neither grows
LOG = logging.getLogger("mkdocs.hooks.formulas")  # strict mode makes a warning an error
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
FETCHED = re.compile(r"<(?:script|img|iframe|link(?=[^>]*stylesheet))\b[^>]*(?:src|href)=\"(?:https?:)?//[^>]*>")


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Replace the formulas that pymdownx.arithmatex has marked. mkdocs calls this function for each page."""
    return FORMULA.sub(lambda formula: _mathml(html.unescape(formula[2]), formula[1] == "div", page), content)


def on_post_page(output: str, page: Page, **_: Any) -> None:
    """Warn of what the browser would fetch from another site."""
    for tag in FETCHED.findall(output):
        LOG.warning("%s lets the browser fetch a file from another site: %s", page.file.src_path, tag)


def _mathml(tex: str, block: bool, page: Page) -> str:
    mathml = convert(tex.strip(), display="block" if block else "inline")
    if "\\" in html.unescape(mathml):  # latex2mathml writes a command that it does not know as text
        LOG.warning("%s has a formula that latex2mathml does not understand: %s", page.file.src_path, tex)
    mathml = mathml.replace(BAR, BAR.replace("<mo>", '<mo stretchy="false">'))
    return f'<div class="formula">{mathml}</div>' if block else mathml
