"""Pages of files outside of ``docs/``, as a hook of mkdocs: the README, the changelog, the example programs and others.

A link between two files of the repository becomes a link between their pages. The version and the repository come from
``pyproject.toml``.
"""

from __future__ import annotations

import ast
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
TEXTS = {  # the page of each text
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "benchmarks/NOTES.md": "results/speed.md",
}
PROGRAMS = {f"examples/{path.name}": f"examples/{path.stem}.md" for path in ROOT.glob("examples/*.py")}
PAGES = TEXTS | PROGRAMS | {"CITATION.cff": "cite.md", "examples": "examples/index.md"}
CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> None:
    """Show the version and the repository. mkdocs calls the functions of a hook by their names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config.copyright = f"{project['name']} {project['version']}, {project['license']} licence"
    if repository := project.get("urls", {}).get("Repository"):
        config.repo_url, config.repo_name = repository, project["name"]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages to the site."""
    for source, page in (TEXTS | PROGRAMS).items():
        markdown = _program(source) if source in PROGRAMS else (ROOT / source).read_text()
        files.append(File.generated(config, page, content=_relinked(markdown, source, page)))


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Replace the markers of the table of programs and of the entries for BibTeX."""
    if "<!-- programs -->" in markdown:
        markdown = markdown.replace("<!-- programs -->", _table_of_programs(config))
    return markdown.replace("<!-- bibtex -->", f"```bibtex\n{bibtex()}\n```")


def described(source: str) -> tuple[str, str, str]:
    """The title of a program, the rest of its docstring, and its code."""
    text = (ROOT / source).read_text()
    module = ast.parse(text)
    title, _, rest = (ast.get_docstring(module) or "").partition(": ")
    code = "\n".join(text.splitlines()[module.body[0].end_lineno :]).strip()
    return title, rest[:1].upper() + rest[1:], code


def bibtex() -> str:
    """The entries of the package and of its references in CITATION.cff."""
    software = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    return "\n\n".join(map(_entry, (software, *software["references"])))


def _program(source: str) -> str:
    title, rest, code = described(source)
    picture = Path("figures", Path(source).stem).with_suffix(".png")
    shown = f"![{title}](../{picture})\n\n" if (ROOT / "docs" / picture).exists() else ""
    return f'# {title}\n\n{rest}\n\n{shown}```python title="{source}"\n{code}\n```\n'


def _table_of_programs(config: MkDocsConfig) -> str:
    (pages,) = (item["Examples"] for item in config.nav or [] if "Examples" in item)
    rows = ["| program | shows |", "| --- | --- |"]
    for name in (Path(page).stem for page in pages if page in PROGRAMS.values()):
        title, rest, _ = described(f"examples/{name}.py")
        first = " ".join(re.split(r"(?<=\.)\s", rest)[0].split())
        rows.append(f"| [`{name}.py`]({name}.md) | {title}. {first} |")
    return "\n".join(rows)


def _relinked(markdown: str, source: str, page: str) -> str:
    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        inside = PAGES.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(inside, posixpath.dirname(page) or '.')}"

    parts = CODE.split(markdown)  # every second part is code
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _entry(work: dict[str, Any]) -> str:
    paper = "year" in work
    key = f"{work['authors'][0]['family-names'].lower()}{work['year']}" if paper else work["title"]
    fields = {"title": f"{{{work['title']}}}", "author": " and ".join(map(_author, work["authors"]))}
    if paper:
        fields |= {"booktitle": work["collection-title"], "volume": work["volume"], "year": work["year"]}
        fields["url"] = work["url"]
    else:
        fields["version"] = work["version"]
    lines = "".join(f",\n  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{'inproceedings' if paper else 'software'}{{{key}{lines}\n}}"


def _author(author: dict[str, str]) -> str:
    return f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"
