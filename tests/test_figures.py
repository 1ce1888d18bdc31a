"""Each script in docs/figures runs and writes its picture, in a setting that is as small as possible."""

from importlib import import_module
from pathlib import Path

import pytest

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


SMALLEST = {
    "lightning_module": {"steps": 1},
    "monitor": {"steps": 1},
    "ranks": {"steps": 8, "energy_steps": 1},
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FIGURES.glob("*.py")))
def test_a_script_draws_its_picture(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # training writes logs
    picture = tmp_path / "picture.png"
    import_module(f"docs.figures.{name}").main(**SMALLEST[name], picture=picture)
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("script", sorted(FIGURES.glob("*.py")), ids=lambda path: path.stem)
def test_the_picture_of_a_script_is_in_the_repository(script):
    assert script.with_suffix(".png").exists()
