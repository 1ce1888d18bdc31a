"""``projunn plot``."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread

from projunn_lightning.cli.plot import Run, run
from tests.support.commands import changed, ended, named
from tests.support.commands import run as run_command


def csv_run(folder, values, metric="val/loss", baseline=None):
    """A log folder of CSVLogger, whose rows of other metrics have no value of this one."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", metric, "train/loss"])
        for step, value in enumerate(values):
            writer.writerows([[10 * step, "", 1.0], [10 * step, value, ""]])
    if baseline is not None:
        (folder / "hparams.yaml").write_text(yaml.safe_dump({"baseline_loss": baseline}))


def board_run(folder, values):
    """A log folder of TensorBoardLogger."""
    folder = Path(folder)
    logger = TensorBoardLogger(folder.parent, name="", version=folder.name)
    for step, value in enumerate(values):
        logger.log_metrics({"val/loss": value}, 10 * step)
    logger.save()
    logger.experiment.close()


def drawn(monkeypatch):
    """Record the arguments of ``draw`` and draw nothing."""
    calls = []
    monkeypatch.setattr("projunn_lightning.cli.plot.draw", lambda *arguments: calls.append(arguments) or [])
    return calls


def test_writes_a_png_and_an_svg_file():
    csv_run("one", [2.0, 1.0, 0.5], baseline=1.5)
    board_run("logs/two", [2.0, 0.1, 0.01])
    status, printed, _ = ended("plot", "one", "logs/two", "--output", "pictures/losses")
    assert status == 0
    assert "plot: pictures/losses.png\nplot: pictures/losses.svg" in printed
    assert imread("pictures/losses.png").shape[2] == 4
    assert "<svg" in Path("pictures/losses.svg").read_text()


def test_reads_tensorboard_and_csv_logs_alike(monkeypatch):
    calls = drawn(monkeypatch)
    csv_run("one", [2.0, 1.0])
    board_run("two", [2.0, 1.0])
    run(["one", "two"])
    runs, metric, baseline, output = calls[0]
    assert [each.name for each in runs] == ["one", "two"]
    assert all(each.curves == [{0: 2.0, 10: 1.0}] for each in runs)
    assert (metric, baseline, output) == ("val/loss", None, Path("plot"))


def test_joins_the_logs_of_a_run_that_was_interrupted(monkeypatch):
    calls = drawn(monkeypatch)
    board_run("run/version_0", [3.0, 2.0])
    board_run("run/version_1", [3.0, 2.0, 1.0])
    run(["run"])
    assert calls[0][0][0].curves == [{0: 3.0, 10: 2.0, 20: 1.0}]


def test_a_comparison_has_a_line_for_each_layer_with_the_range_of_its_seeds(monkeypatch):
    calls = drawn(monkeypatch)
    for layer in ("projunn", "lstm"):
        for seed in (0, 1):
            csv_run(f"comparisons/task/{layer}/seed_{seed}", [2.0, 1.0 + seed])
            result = {"test loss": 0.5, "% of baseline": 25.0}
            Path(f"comparisons/task/{layer}/seed_{seed}/result.json").write_text(json.dumps(result))
    run(["comparisons/task"])
    runs, _, baseline, _ = calls[0]
    assert [each.name for each in runs] == ["lstm", "projunn"]
    assert runs[0].summary() == [(0, 2.0, 2.0, 2.0), (10, 1.5, 1.0, 2.0)]
    assert baseline == 2.0


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "CSVLogger"])
def test_a_run_of_fit_has_the_baseline_of_its_task(monkeypatch, logger):
    calls = drawn(monkeypatch)
    run_command("fit", changed(trainer={"logger": named(logger)}))
    run(["lightning_logs/version_0"])
    assert calls[0][2] == pytest.approx(2 * math.log(4) / 7)


def test_a_seed_that_stopped_early_counts_up_to_its_last_step():
    assert Run("", [{0: 4.0, 1: 2.0}, {0: 2.0}]).summary() == [(0, 3.0, 2.0, 4.0), (1, 2.0, 2.0, 2.0)]


@pytest.mark.parametrize(("second", "expected"), [(1.5, 1.5), (2.5, None)])
def test_the_line_of_the_baseline_needs_one_baseline_for_all_runs(monkeypatch, second, expected):
    calls = drawn(monkeypatch)
    csv_run("one", [1.0], baseline=1.5)
    csv_run("two", [1.0], baseline=second)
    run(["one", "two"])
    assert calls[0][2] == expected


def test_an_accuracy_has_no_baseline_of_the_loss(monkeypatch):
    calls = drawn(monkeypatch)
    csv_run("one", [0.5], metric="val/accuracy", baseline=1.5)
    run(["one", "--metric", "val/accuracy"])
    assert calls[0][2] is None


def test_runs_of_one_name_are_told_apart_by_their_folders(monkeypatch):
    calls = drawn(monkeypatch)
    csv_run("a/version_0", [1.0])
    csv_run("b/version_0", [1.0])
    run(["a/version_0", "b/version_0"])
    assert [each.name for each in calls[0][0]] == ["a/version_0", "b/version_0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing is not a folder; pass the log folder of a run, such as lightning_logs/version_0"),
        (["one", "--metric", "val/los"], "one has no log of 'val/los', expected one of val/loss"),
        (["empty"], "empty has no log; pass the log folder of a run"),
    ],
)
def test_says_what_cannot_be_drawn(arguments, message):
    csv_run("one", [1.0])
    Path("empty").mkdir()
    status, _, error = ended("plot", *arguments)
    assert status == 2
    assert message in " ".join(error.split())
    assert not list(Path().glob("plot*"))
