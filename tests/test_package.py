import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TRAIN = """
import sys
import projunn_lightning
from projunn_lightning.cli.main import main

print(projunn_lightning.__file__)
sys.argv = ["projunn", "configs"]
main()
small = ["--data.test_size", "4", "--data.val_size", "4", "--data.batch_size", "2", "--trainer.accelerator", "cpu"]
sys.argv = ["projunn", "fit", "--config", "copying", "--trainer.fast_dev_run", "2", *small]
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, without network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("projunn_lightning", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, source]
    subprocess.run([sys.executable, "-m", "pip", *map(str, build)], check=True, capture_output=True)
    (path,) = out.iterdir()
    return zipfile.ZipFile(path)


class TestWheel:
    def test_holds_every_module_the_marker_of_types_and_the_licence(self, wheel):
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "projunn_lightning").rglob("*.py")}
        names = set(wheel.namelist())
        assert len(modules) > 50
        assert modules | {"projunn_lightning/py.typed"} <= names
        licence = next(name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
        assert wheel.read(licence).startswith(b"MIT License")
        assert {name.partition("/")[0].partition("-")[0] for name in names} == {"projunn_lightning"}

    def test_holds_the_configs_but_those_of_the_repository_s_examples(self, wheel):
        held = {name.removeprefix("projunn_lightning/") for name in wheel.namelist() if name.endswith(".yaml")}
        texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.glob("configs/**/*.yaml")}
        needs_examples = {name for name, text in texts.items() if "class_path: examples." in text}
        assert needs_examples == {"configs/own_model.yaml"}
        assert held == set(texts) - needs_examples

    @pytest.mark.slow
    def test_trains_a_config_by_name_from_another_folder(self, wheel, tmp_path):
        wheel.extractall(tmp_path / "site")
        (tmp_path / "elsewhere").mkdir()
        done = subprocess.run(
            [sys.executable, "-c", TRAIN],
            cwd=tmp_path / "elsewhere",
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "COLUMNS": "80"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.strip().splitlines()
        assert lines[0] == str(tmp_path / "site" / "projunn_lightning" / "__init__.py")
        assert f"  {'copying':18}  Copying memory, T = 100: recall 10 symbols after 100 blank" in done.stdout
        assert "own_model" not in done.stdout
        assert re.fullmatch(r"test loss \S+  \(baseline 0\.173; .*\)  accuracy \S+ %", lines[-1])


def test_the_version_and_the_authors_are_the_same_everywhere():
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == "MIT"
    assert {"The projunn_lightning authors"} == {author["name"] for author in citation["authors"]}
    assert "Copyright (c) 2026 The projunn_lightning authors" in (ROOT / "LICENSE").read_text()
    assert '{ name = "The projunn_lightning authors" }' in project
