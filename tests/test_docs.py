"""The documentation agrees with the package. That the site builds is checked by ``mkdocs build --strict``."""

import ast
import dataclasses
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.config import load_config

from projunn_lightning.functional import RETRACTIONS, SAMPLERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text() for page in sorted(DOCS.rglob("*.md"))}
RUNNABLE = ["getting-started.md", "monitoring.md", "troubleshooting.md"]
MARKERS = sorted(set(re.findall(r"<!-- table: (.+) -->", "".join(PAGES.values()))))


def blocks(page, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGES[page], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in RUNNABLE for number in range(1, 1 + len(blocks(page, "python")))],
)
def test_the_code_of_a_page_runs(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the code writes logs
    exec(compile(blocks(page, "python")[number - 1], f"{page}, block {number}", "exec"), {"__name__": "__main__"})


def test_a_formatter_has_left_the_marks_of_included_files_alone():
    assert not [name for name, text in PAGES.items() if re.search(r"--8 +<|< +--", text.replace("<!-- --8<--", ""))]


def test_every_page_and_picture_is_used():
    text = "".join([(ROOT / "mkdocs.yml").read_text(), (ROOT / "README.md").read_text(), *PAGES.values()])
    files = [file.relative_to(DOCS) for file in DOCS.rglob("*") if file.suffix in (".md", ".png", ".svg")]
    examples = {Path("figures", program.stem).with_suffix(".png") for program in ROOT.glob("examples/*.py")}
    assert not [str(file) for file in files if str(file) not in text and file not in examples]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/NOTES.md"])
def test_the_links_of_a_page_outside_of_the_site_lead_to_files(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.fixture(scope="module")
def hooks():
    """The modules of the hooks, loaded by mkdocs."""
    return load_config(str(ROOT / "mkdocs.yml")).hooks


@pytest.fixture(scope="module")
def tables(hooks):
    return hooks["docs/tables.py"]


def test_every_example_has_a_page_with_its_title_and_its_code_in_the_navigation(hooks):
    listed = set(re.findall(r"- (examples/\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    programs = hooks["docs/pages.py"].PROGRAMS
    assert listed - {"examples/index.md"} == set(programs.values())
    for program in programs:
        title, rest, code = hooks["docs/pages.py"].described(program)
        assert 0 < len(title) < 50, program
        assert rest[0].isupper()
        assert code.startswith(("import ", "from "))
        assert (ROOT / program).read_text().strip().endswith(code)


def test_links_between_files_of_the_repository_become_links_between_pages(hooks):
    def relinked(text):
        return hooks["docs/pages.py"]._relinked(text, "benchmarks/NOTES.md", "results/speed.md")

    assert relinked("[a](../docs/limits.md#faults)") == "[a](../limits.md#faults)"
    assert relinked("[a](../CHANGELOG.md) [b](../examples)") == "[a](../changelog.md) [b](../examples/index.md)"
    assert relinked("[a](../examples/fabric.py)") == "[a](../examples/fabric.md)"
    unchanged = "[a](https://arxiv.org) [b](#here)\n```python\nx[0](../CHANGELOG.md)\n```"
    assert relinked(unchanged) == unchanged


def test_the_entries_for_bibtex_cite_the_package_and_the_paper(hooks):
    entries = hooks["docs/pages.py"].bibtex()
    assert re.findall(r"^@(\w+)\{(\w+),$", entries, re.MULTILINE) == [
        ("software", "projunn_lightning"),
        ("inproceedings", "kiani2022"),
    ]
    assert "author = {Kiani, Bobak and Balestriero, Randall and LeCun, Yann and Lloyd, Seth}," in entries
    assert "author = {{The projunn_lightning authors}}," in entries


class TestFormulas:
    @pytest.fixture
    def page(self):
        return SimpleNamespace(file=SimpleNamespace(src_path="method.md"))

    def test_become_mathml(self, hooks, page):
        text = r'<p><span class="arithmatex">\(n \ge p\)</span></p><div class="arithmatex">\[ x &lt; 1 \]</div>'
        inline, block = re.findall(r"<math.*?</math>", hooks["docs/formulas.py"].on_page_content(text, page))
        assert 'display="inline"' in inline
        assert "<mi>n</mi>" in inline
        assert 'display="block"' in block
        assert "<mn>1</mn>" in block

    @pytest.mark.parametrize("bars", [(r"\lVert", r"\rVert"), (r"\|", r"\|")])
    def test_have_bars_of_one_size(self, hooks, page, bars):
        text = r'<span class="arithmatex">\(' + " D ".join(bars) + r"_F\)</span>"
        assert hooks["docs/formulas.py"].on_page_content(text, page).count('stretchy="false">&#x02016;</mo>') == 2

    def test_with_an_unknown_command_cause_a_warning(self, hooks, page, caplog):
        hooks["docs/formulas.py"].on_page_content(r'<span class="arithmatex">\(\notacommand x\)</span>', page)
        assert r"method.md has a formula that latex2mathml does not understand: \notacommand x" in caplog.text


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.net/a.js">',
        '<link rel="stylesheet" href="//cdn.net/a.css">',
        '<img src="http://a/b.png">',
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_causes_a_warning(hooks, caplog, tag):
    page = SimpleNamespace(file=SimpleNamespace(src_path="method.md"))
    hooks["docs/formulas.py"].on_post_page(f'<a href="https://arxiv.org"><img src="a.png">{tag}', page)
    assert caplog.messages == [f"method.md lets the browser fetch a file from another site: {tag}"]


def names(path):
    """The names in a registry, or of the fields of a dataclass."""
    described = pkgutil.resolve_name(f"projunn_lightning.{path}")
    return [field.name for field in dataclasses.fields(described)] if isinstance(described, type) else list(described)


def test_a_page_has_the_table_of_each_registry():
    registries = {"functional.RETRACTIONS", "functional.SAMPLERS", "functional.init.INITS"}
    assert registries | {"optim.ProjUNNSettings"} <= set(MARKERS)


@pytest.mark.parametrize("path", MARKERS)
def test_a_generated_table_describes_every_name(tables, path):
    table = tables.on_page_markdown(f"<!-- table: {path} -->")
    assert re.findall(r"^\| `(\w+)` \| .*\w.* \|$", table, re.MULTILINE) == names(path)


def test_a_marker_within_a_sentence_stays_as_it_is(tables):
    sentence = "A marker such as `<!-- table: functional.SAMPLERS -->` becomes a table."
    assert tables.on_page_markdown(sentence) == sentence


@pytest.mark.parametrize(
    ("path", "registry"), [("functional.SAMPLERS", SAMPLERS), ("functional.RETRACTIONS", RETRACTIONS)]
)
def test_a_new_entry_appears_by_itself(tables, monkeypatch, path, registry):
    entry = dataclasses.replace(next(iter(registry.values())), summary="a toy, for |W|")
    monkeypatch.setitem(registry, "toy", entry)
    assert tables.table(path).endswith("\n| `toy` | a toy, for \\|W\\| |")


@pytest.mark.parametrize("page", PAGES)
def test_a_table_by_hand_has_figures_beside_the_names_of_a_registry_and_no_descriptions(page):
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([^|]*)\|", PAGES[page], re.MULTILINE)
    registered = {name for path in MARKERS for name in names(path)}
    assert not [name for name, cell in rows if name in registered and not cell[:1].isdigit()]


@pytest.fixture(scope="module")
def messages():
    """All strings in the package, with ``…`` for each expression of an f-string."""
    trees = [ast.parse(file.read_text()) for file in (ROOT / "projunn_lightning").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    formatted = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
    return plain + ["".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts) for parts in formatted]


@pytest.mark.parametrize("quoted", blocks("troubleshooting.md", "text"))
def test_a_message_quoted_for_troubleshooting_is_one_of_the_package(messages, quoted):
    assert any(quoted.strip() in message for message in messages)
