"""The runs behind the tables of results."""

import shlex
import time
from pathlib import Path

import pytest

from benchmarks import paper
from benchmarks.runner import read
from tests.support.commands import run

RUN = {"name": "a run", "fit": "--config copying", "published": "solved"}


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    return paper.Table("copying", "Copying", curve="val/loss", figure="test/loss", runs=[RUN])


def log(home: Path, *lines: str) -> None:
    home.mkdir(parents=True)
    (home / "metrics.csv").write_text("\n".join(["epoch,step,val/loss,test/loss", *lines]) + "\n")


class TestACurve:
    def test_goes_on_in_the_next_part_from_the_checkpoint(self, table, tmp_path):
        log(tmp_path / "part_0", "0,99,0.5,", "1,199,0.4,")
        log(tmp_path / "part_1", "1,199,0.3,", "2,299,0.2,", "3,300,,0.25")
        assert list(paper.curve(table, tmp_path)) == [
            (0, 99, "val", 0.5),
            (1, 199, "val", 0.3),
            (2, 299, "val", 0.2),
            (3, 300, "test", 0.25),
        ]


class TestATable:
    def rows(self, *rows: str) -> str:
        return "\n".join([",".join(paper.COLUMNS), *rows]) + "\n"

    def test_has_the_median_and_the_range_over_seeds_and_the_line_that_repeats_a_run(self, table):
        tests = [
            f"a run,{seed},9,900,test,{figure},{minutes}" for seed, figure, minutes in [(0, 3, 5), (1, 1, 6), (2, 2, 9)]
        ]
        table.file.write_text(self.rows("a run,0,1,100,val,7,5", *tests))
        *_, line = paper.markdown(table)
        assert (
            line == "| a run | solved | 2 (1 to 3) | 3 | 9 | 6 | `projunn fit --config copying --seed_everything 0` |"
        )

    def test_says_what_is_not_finished_or_has_not_begun(self, table):
        *_, line = paper.markdown(table)
        assert line.startswith("| a run | solved |  |")
        table.file.write_text(self.rows("a run,0,1,100,val,7,5", "a run,0,2,200,val,6,5"))
        *_, line = paper.markdown(table)
        assert line.startswith("| a run | solved | 6, not finished | 1 | 2 | 5 |")


def test_every_run_of_the_tables_is_a_valid_command():
    for table in paper.tables().values():
        for each in table.runs:
            assert "seed_everything: 3" in run(*shlex.split(paper.command(each, 3))[1:], "--print_config")


@pytest.mark.slow
def test_a_run_is_trained_and_goes_on_where_it_was_interrupted(table, tmp_path):
    fit = "--config copying --data.delay 5 --data.train_size 3200 --trainer.max_epochs"
    short, long = ({**RUN, "fit": f"{fit} {epochs}"} for epochs in (1, 3))
    for each in (short, long):
        paper.train(table, each, 0, tmp_path / "runs", time.monotonic() + 100)
    rows = read(table.file)
    assert [row["split"] for row in rows] == ["val", "val", "val", "test"]
    assert [row["step"] for row in rows] == ["49", "99", "149", "150"]
    assert float(rows[-1]["minutes"]) > 0
