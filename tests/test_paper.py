"""The runs behind the tables of results."""

import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import paper
from benchmarks.runner import read, spread
from tests.support.commands import run

RUN = {"name": "a run", "fit": "--config copying", "published": "solved"}


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    figures = {"loss, %": ("test/loss", 100.0), "recalled": ("test/accuracy", 1.0)}
    return paper.Table("copying", "Copying", curve="val/loss", figures=figures, runs=[RUN], picture=True)


def log(home: Path, *lines: str) -> None:
    home.mkdir(parents=True)
    (home / "metrics.csv").write_text("\n".join(["epoch,step,val/loss,test/loss,test/accuracy", *lines]) + "\n")


class TestACurve:
    def test_goes_on_in_the_next_part_from_the_checkpoint(self, table, tmp_path):
        log(tmp_path / "part_0", "0,99,0.5,,", "1,199,0.4,,")
        log(tmp_path / "part_1", "1,199,0.3,,", "2,299,0.2,,", "3,300,,0.25,0.9")
        assert list(paper.curve(table, tmp_path)) == [
            (0, 99, "val/loss", 0.5),
            (1, 199, "val/loss", 0.3),
            (2, 299, "val/loss", 0.2),
            (3, 300, "test/loss", 0.25),
            (3, 300, "test/accuracy", 0.9),
        ]


class TestATable:
    def rows(self, *rows: str) -> str:
        return "\n".join([",".join(paper.COLUMNS), *rows]) + "\n"

    def seed(self, seed: int, figure: float, minutes: float) -> list[str]:
        metrics = {"val/loss": 7, "test/loss": figure, "test/accuracy": 0.5}
        return [f"a run,{seed},8,1499,{metric},{value},{minutes}" for metric, value in metrics.items()]

    def test_has_the_medians_and_ranges_over_seeds_and_the_lines_that_repeat_its_runs(self, table):
        first = "a run,0,1,100,val/loss,7,5"
        table.file.write_text(self.rows(first, *self.seed(0, 3, 5), *self.seed(1, 1, 6), *self.seed(2, 2, 9)))
        heads, _, line, *commands = paper.markdown(table)
        assert heads == "| run | published | loss, % | recalled | seeds | epochs | steps | minutes |"
        assert line == "| a run | solved | 200 (100 to 300) | 0.5 | 3 | 9 | 1,500 | 6 (5 to 9) |"
        repeated = "python -m projunn_lightning fit --config copying --seed_everything 0"
        assert commands == ["", "```sh", "# a run", repeated, "```"]

    def test_says_what_is_not_finished_and_leaves_out_what_has_not_begun(self, table):
        assert not [line for line in paper.markdown(table) if "a run" in line]
        table.file.write_text(self.rows("a run,0,0,99,val/loss,7,5", "a run,0,1,199,val/loss,6,5", *self.seed(1, 1, 6)))
        _, _, line, *_ = paper.markdown(table)
        assert line.startswith("| a run | solved | 100 | 0.5 | 1 of 2 finished | 5.5 (2 to 9) |")

    def test_says_when_the_task_was_solved_and_by_how_many_seeds(self, table):
        solved = replace(table, solved=6.0)
        curve = ["a run,2,0,499,val/loss,6,4", "a run,2,1,999,val/loss,5,4", "a run,2,2,1999,val/loss,7,4"]
        table.file.write_text(self.rows(*self.seed(0, 3, 5), *self.seed(1, 1, 6), *curve))
        heads, _, line, *_ = paper.markdown(solved)
        assert "| recalled | steps until solved | minutes until solved | seeds |" in heads
        assert "| 0.5 | 1,000, 1 of 3 seeds | 2 | 2 of 3 finished |" in line
        table.file.write_text(self.rows(*self.seed(0, 3, 5)))
        assert "| 0.5 | not solved |  | 1 |" in list(paper.markdown(solved))[2]

    def test_without_a_run_says_how_to_train(self, table, capsys):
        paper.show(table)
        assert "Copying: no run yet, python -m benchmarks.paper run copying trains them" in capsys.readouterr().out

    def test_has_a_picture_of_the_curves(self, table, tmp_path):
        table.file.write_text(self.rows(*self.seed(0, 3, 5), *self.seed(1, 1, 6)))
        paper.show(table)
        (picture,) = (tmp_path / "docs" / "figures").iterdir()
        assert picture.name == "copying.png"
        assert picture.stat().st_size > 1000


def test_every_run_of_the_tables_is_a_valid_command():
    for table in paper.tables().values():
        for each in table.runs:
            assert "seed_everything: 3" in run(*shlex.split(paper.command(each, 3))[3:], "--print_config")


def test_the_page_of_results_shows_the_tables_that_were_measured():
    page = (paper.ROOT / "docs" / "results" / "paper.md").read_text()
    measured = [table for table in paper.tables().values() if table.file.exists()]
    assert measured
    assert not [line for table in measured for line in paper.markdown(table) if line not in page]


def test_says_that_no_run_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(paper, "tables", dict)
    monkeypatch.setattr("sys.argv", ["paper", "run"])
    paper.main()
    assert capsys.readouterr().out.startswith("no run is missing")


def test_figures_have_three_digits_but_are_not_rounded_up_to_100_percent():
    assert [spread([figure]) for figure in (0.4219, 93.42, 95.01)] == ["0.422", "93.4", "95.0"]
    assert [spread([figure]) for figure in (12, 2250, 100.0)] == ["12", "2,250", "100"]
    assert spread([99.97, 99.95, 99.96]) == "99.96 (99.95 to 99.97)"


@pytest.mark.slow
def test_a_run_is_trained_and_goes_on_where_it_was_interrupted(table, tmp_path):
    fit = "--config copying --data.delay 5 --data.train_size 3200 --trainer.max_epochs"
    short, long = ({**RUN, "fit": f"{fit} {epochs}"} for epochs in (1, 3))
    for each in (short, long):
        paper.train(table, each, 0, tmp_path / "runs", time.monotonic() + 100)
    rows = read(table.file)
    assert [row["metric"] for row in rows] == ["val/loss"] * 3 + ["test/loss", "test/accuracy"]
    assert [row["step"] for row in rows] == ["49", "99", "149", "150", "150"]
    assert float(rows[-1]["minutes"]) > 0
