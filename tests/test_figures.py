"""Each script in docs/figures runs and writes its picture, in a setting that is as small as possible."""

from importlib import import_module
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def logs(home):
    """Logs as ``projunn compare`` writes them, of two validations."""
    for rnn in import_module("docs.figures.copying").RNNS:
        with SummaryWriter(home / rnn / "version_0") as writer:
            writer.add_scalar("val/loss", 0.1, 999)
            writer.add_scalar("val/loss", 0.001, 1999)
    return home


SMALLEST = {
    "copying": lambda folder: {"home": logs(folder / "runs")},
    "lightning_module": lambda folder: {"steps": 1},
    "monitor": lambda folder: {"steps": 1},
    "ranks": lambda folder: {"steps": 8, "energy_steps": 1},
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FIGURES.glob("*.py")))
def test_a_script_draws_its_picture(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # training writes logs
    picture = tmp_path / "picture.png"
    import_module(f"docs.figures.{name}").main(**SMALLEST[name](tmp_path), picture=picture)
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("script", sorted(FIGURES.glob("*.py")), ids=lambda path: path.stem)
def test_the_picture_of_a_script_is_in_the_repository(script):
    assert script.with_suffix(".png").exists()
