"""The Python code of the documentation runs as it stands; that the site builds is checked by `mkdocs build`."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["index.md", "monitoring.md", "troubleshooting.md"]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(1, 1 + len(blocks(page)))]
)
def test_the_code_of_a_page_runs_as_it_stands(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for the logs
    exec(compile(blocks(page)[number - 1], f"{page}, block {number}", "exec"), {"__name__": "__main__"})


def test_every_page_and_picture_is_used():
    text = (DOCS.parent / "mkdocs.yml").read_text() + "".join(page.read_text() for page in DOCS.glob("*.md"))
    files = [file.relative_to(DOCS) for file in DOCS.rglob("*") if file.suffix in (".md", ".png", ".svg")]
    assert not [str(file) for file in files if str(file) not in text]
