import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from projunn_lightning import SequenceModel
from projunn_lightning.cli import main
from projunn_lightning.cli.compare import COLUMNS, Progress, degrees_of_freedom
from projunn_lightning.nn import RNNS

FOLDERS = sorted(path for path in (Path(__file__).parents[2] / "configs" / "compare").iterdir())
TASK = """
seed_everything: 3
model: {class_path: SequenceModel, init_args: {input_size: 6, output_size: 5, hidden_size: 8, ignore_index: 4}}
data: {class_path: CopyingMemory, init_args: {delay: 3, memory_length: 2, alphabet_size: 4, batch_size: 16,
  train_size: 64, val_size: 32, test_size: 64}}
optimizer: {class_path: torch.optim.RMSprop, init_args: {lr: 0.002}}
trainer: {accelerator: cpu, max_epochs: 2, log_every_n_steps: 1}
"""
pytestmark = pytest.mark.filterwarnings("ignore:no parameter is declared orthogonal:UserWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "task.yaml").write_text(TASK)
    for cell in ("projunn", "gru", "exprnn"):
        (folder / f"{cell}.yaml").write_text(f"model: {{init_args: {{rnn: {cell}}}}}")
    return folder


def compare(capsys, *args):
    sys.argv = ["projunn", "compare", *map(str, args)]
    main()
    return capsys.readouterr().out


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        compare(capsys, *args)
    assert stop.value.code == 2
    return capsys.readouterr().err


def rows(output="comparisons/task"):
    with Path(output, "table.csv").open() as file:
        return list(csv.DictReader(file))


class TestCompare:
    def test_ends_with_a_table_of_all_cells(self, capsys, folder):
        out = compare(capsys, folder)
        for word in ("exprnn", "gru", "projunn", "test loss", "unitarity error", "tensorboard --logdir"):
            assert word in out
        table = rows()
        assert [row["cell"] for row in table] == ["exprnn", "gru", "projunn"]
        assert tuple(table[0]) == COLUMNS
        for row in table:
            assert float(row["% of baseline"]) == pytest.approx(100 * float(row["test loss"]) / 0.39608, rel=1e-3)
            assert row["steps"] == "8"
            assert float(row["ms a step"]) > 0
            assert (row["unitarity error"] == "") == (row["cell"] == "gru")
            assert row["unitarity error"] == "" or float(row["unitarity error"]) < 1e-6

    def test_runs_the_cells_asked_for_with_the_options_given(self, capsys, folder):
        compare(capsys, folder, "--cells", "projunn,gru", "--output", "elsewhere", "--trainer.max_epochs", 1)
        assert [(row["cell"], row["steps"]) for row in rows("elsewhere")] == [("projunn", "4"), ("gru", "4")]

    def test_tensorboard_overlays_the_cells_and_has_their_hyperparameters(self, capsys, folder):
        compare(capsys, folder, "--cells", "projunn,gru")
        for cell in ("projunn", "gru"):
            accumulator = EventAccumulator(f"comparisons/task/{cell}")
            accumulator.Reload()
            assert {"train/loss", "val/loss", "test/loss", "% of baseline"} <= set(accumulator.Tags()["scalars"])
            plugins = accumulator.summary_metadata
            assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(plugins)

    def test_counts_as_solved_what_is_below_a_tenth_of_the_baseline(self, capsys, folder, monkeypatch):
        monkeypatch.setattr("projunn_lightning.cli.compare.SOLVED", 100.0)
        compare(capsys, folder, "--cells", "projunn")
        assert rows()[0]["solved at step"] == "4"  # the first validation


class TestResumes:
    def test_cells_that_are_done_are_not_run_again(self, capsys, folder):
        compare(capsys, folder, "--cells", "gru")
        first = rows()
        (folder / "gru.yaml").write_text("# a comment\n" + (folder / "gru.yaml").read_text())
        times = Path("comparisons/task/gru/result.json").stat().st_mtime_ns
        out = compare(capsys, folder, "--cells", "gru,projunn")
        assert "gru: begins" not in out
        assert "projunn: begins" in out
        assert rows()[0] == first[0]
        assert Path("comparisons/task/gru/result.json").stat().st_mtime_ns == times

    @pytest.mark.parametrize("cell", ["gru", "projunn"])
    def test_an_interrupted_cell_goes_on_to_the_result_of_an_unbroken_run(self, capsys, folder, monkeypatch, cell):
        compare(capsys, folder, "--cells", cell)
        (unbroken,) = rows()
        shutil.rmtree("comparisons")

        class PowerCutError(Exception):
            pass

        def cut(self, trainer, *args):
            if trainer.global_step == 6:
                raise PowerCutError

        with monkeypatch.context() as patch:
            patch.setattr(Progress, "on_train_batch_start", cut)
            with pytest.raises(PowerCutError):
                compare(capsys, folder, "--cells", cell)
        assert not Path(f"comparisons/task/{cell}/result.json").exists()
        out = compare(capsys, folder, "--cells", cell)
        assert f"{cell}: goes on from" in out
        (resumed,) = rows()
        assert resumed["steps"] == "8"
        assert resumed["test loss"] == unbroken["test loss"]

    def test_refuses_to_mix_settings(self, capsys, folder):
        compare(capsys, folder, "--cells", "gru")
        err = refused(capsys, folder, "--cells", "gru", "--trainer.max_epochs", 1)
        assert "comparisons/task/gru was begun with other settings; remove it, or pass another --output" in err
        assert json.loads(Path("comparisons/task/gru/result.json").read_text())["steps"] == 8


class TestRefuses:
    def test_a_folder_without_a_task(self, capsys, folder):
        (folder / "task.yaml").unlink()
        assert "must hold task.yaml and a YAML of each cell" in refused(capsys, folder)

    def test_cells_that_the_folder_does_not_have(self, capsys, folder):
        err = refused(capsys, folder, "--cells", "gru,ltsm")
        assert "has no cell ltsm, expected some of exprnn, gru, projunn" in err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rnn": "projunn"}, 28 + 8 + 8 + 9),
        ({"rnn": "exprnn"}, 28 + 8 + 8 + 9),
        ({"rnn": "scornn", "num_layers": 2}, 2 * 28 + 8 + 64 + 2 * 8 + 9),
        ({"rnn": "ornn", "rnn_options": {"reflections": 2}}, 15 + 8 + 8 + 9),
        ({"rnn": "projunn", "complex": True}, 64 + 16 + 8 + 17),
        ({"rnn": "urnn", "complex": True}, 56 + 16 + 8 + 17),
        ({"rnn": "eunn_fft", "complex": True}, 24 + 8 + 16 + 8 + 17),
        ({"rnn": "rnn"}, 64 + 8 + 16 + 9),
    ],
    ids=str,
)
def test_degrees_of_freedom(options, expected):
    """Recurrent matrix, input, bias, read-out; of a unitary matrix N (N - 1) / 2 or N^2."""
    assert degrees_of_freedom(SequenceModel(1, 1, 8, task="regression", **options)) == expected


class TestConfigs:
    @pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
    def test_every_cell_is_there_and_has_about_as_many_degrees_of_freedom_unless_the_header_says_so(self, folder):
        files = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
        task = files.pop("task")["model"]["init_args"]
        assert set(files) == set(RNNS)
        sizes = {}
        for cell, config in files.items():
            assert config["model"]["init_args"]["rnn"] == cell
            sizes[cell] = degrees_of_freedom(SequenceModel(**task | config["model"]["init_args"]))
        for cell, size in sizes.items():
            few = folder.name == "adding_200" and cell in ("urnn", "eunn_fft")
            assert (0.4 if few else 0.85) < size / sizes["projunn"] < 1.16, cell

    @pytest.mark.parametrize(
        "folder",
        [pytest.param(path, marks=pytest.mark.slow if path.name == "adding_200" else ()) for path in FOLDERS],
        ids=lambda path: path.name,
    )
    def test_every_cell_starts(self, capsys, tmp_path, monkeypatch, folder):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", sys.argv)
        name = "delay" if "copying" in folder.name else "length"
        small = {name: 5, "train_size": 4, "val_size": 2, "test_size": 2, "batch_size": 2}
        options = [word for key, value in small.items() for word in (f"--data.{key}", value)]
        compare(capsys, folder, "--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 1, *options)
        assert len(rows(f"comparisons/{folder.name}")) == len(RNNS)
