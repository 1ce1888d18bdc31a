import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from projunn_lightning import SequenceModel
from projunn_lightning.cli.compare import COLUMNS, RUN, SUMMARY, Progress, degrees_of_freedom, write_table
from projunn_lightning.nn import RNNS
from tests.support.commands import ROOT, ended, refused, run

FOLDERS = sorted((ROOT / "configs" / "compare").iterdir())
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
def folder(tmp_path):
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "task.yaml").write_text(TASK)
    for rnn in ("projunn", "gru", "exprnn"):
        (folder / f"{rnn}.yaml").write_text(f"model: {{init_args: {{rnn: {rnn}}}}}")
    return folder


def rows(output="comparisons/task"):
    with Path(output, "table.csv").open() as file:
        return list(csv.DictReader(file))


class TestCompare:
    def test_ends_with_a_table_of_all_recurrent_layers(self, folder):
        out = run("compare", folder)
        for word in ("exprnn", "gru", "projunn", "unitarity", "tensorboard --logdir"):
            assert word in out
        table = rows()
        assert [row["rnn"] for row in table] == ["exprnn", "gru", "projunn"]
        assert tuple(table[0]) == RUN
        for row in table:
            assert float(row["% of baseline"]) == pytest.approx(100 * float(row["test loss"]) / 0.39608, rel=1e-3)
            assert row["steps"] == "8"
            assert float(row["ms a step"]) > 0
            assert (row["unitarity error"] == "") == (row["rnn"] == "gru")
            assert row["unitarity error"] == "" or float(row["unitarity error"]) < 1e-6

    def test_trains_the_recurrent_layers_asked_for_with_the_options_given(self, folder):
        run("compare", folder, "--rnns", "projunn,gru", "--output", "elsewhere", "--trainer.max_epochs", 1)
        assert [(row["rnn"], row["steps"]) for row in rows("elsewhere")] == [("projunn", "4"), ("gru", "4")]
        for rnn in ("projunn", "gru"):  # TensorBoard overlays the curves, and has the hyperparameters
            accumulator = EventAccumulator(f"elsewhere/{rnn}")
            accumulator.Reload()
            assert {"train/loss", "val/loss", "z_test/loss", "z_result/% of baseline"} <= set(
                accumulator.Tags()["scalars"]
            )
            plugins = accumulator.summary_metadata
            assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(plugins)

    def test_several_seeds_end_in_a_row_of_means_for_each_layer_and_a_row_of_the_file_for_each_run(self, folder):
        out = run("compare", folder, "--rnns", "projunn,gru", "--seeds", 2)
        for word in ("deviation", "seconds", "0 of 2"):
            assert word in out
        table = rows()
        assert [(row["rnn"], row["seed"]) for row in table] == [(r, s) for r in ("projunn", "gru") for s in "01"]
        assert table[0]["test loss"] != table[1]["test loss"]
        assert Path("comparisons/task/gru/seed_1/result.json").is_file()
        assert "begins" not in run("compare", folder, "--rnns", "projunn,gru", "--seeds", 2)

    @pytest.mark.parametrize("columns", [COLUMNS, SUMMARY])
    def test_the_table_fits_80_columns_with_whole_words(self, tmp_path, capsys, monkeypatch, columns):
        monkeypatch.setenv("COLUMNS", "80")
        longest = dict.fromkeys(RUN, 0.000123456) | {"rnn": "eunn_fft", "parameters": 1234567, "steps": 100000}
        longest |= {"solved at step": 100000, "seconds to solve": 12345.6, "unitarity error": 1.44e-07, "seed": 0}
        write_table({"eunn_fft": [longest] * (2 if columns is SUMMARY else 1)}, tmp_path)
        table, _, _ = capsys.readouterr().out.partition("eunn_fft")
        assert max(map(len, table.splitlines())) <= 80
        assert sorted(" ".join(columns).split()) == sorted(re.findall(r"[%\w]+", table))

    def test_the_progress_bar_names_the_run(self, folder):
        assert "run: projunn" in run("compare", folder, "--rnns", "projunn")

    def test_a_number_of_seeds_below_one_is_refused(self, folder):
        assert "argument --seeds: must be 1 or more, found 0" in refused("compare", folder, "--seeds", 0)

    def test_a_task_is_solved_at_the_first_validation_below_a_tenth_of_the_baseline(self, folder, monkeypatch):
        monkeypatch.setattr("projunn_lightning.cli.compare.SOLVED", 100.0)
        run("compare", folder, "--rnns", "projunn")
        assert rows()[0]["solved at step"] == "4"


class TestResumes:
    def test_a_recurrent_layer_that_is_done_is_not_trained_again(self, folder):
        run("compare", folder, "--rnns", "gru")
        first = rows()
        (folder / "gru.yaml").write_text("# a comment\n" + (folder / "gru.yaml").read_text())
        times = Path("comparisons/task/gru/result.json").stat().st_mtime_ns
        out = run("compare", folder, "--rnns", "gru,projunn")
        assert "gru: begins" not in out
        assert "projunn: begins" in out
        assert rows()[0] == first[0]
        assert Path("comparisons/task/gru/result.json").stat().st_mtime_ns == times

    @pytest.mark.parametrize("rnn", [pytest.param("gru", marks=pytest.mark.slow), "projunn"])
    def test_an_interrupted_run_goes_on_to_the_result_of_an_unbroken_run(self, folder, monkeypatch, rnn):
        run("compare", folder, "--rnns", rnn)
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
                ended("compare", folder, "--rnns", rnn)
        assert not Path(f"comparisons/task/{rnn}/result.json").exists()
        out = run("compare", folder, "--rnns", rnn)
        assert f"{rnn}: goes on from" in out
        (resumed,) = rows()
        assert resumed["steps"] == "8"
        assert resumed["test loss"] == unbroken["test loss"]

    def test_refuses_to_mix_settings(self, folder):
        run("compare", folder, "--rnns", "gru")
        message = refused("compare", folder, "--rnns", "gru", "--trainer.max_epochs", 1)
        assert "comparisons/task/gru was begun with other settings; pass --restart to begin anew, or another" in message
        assert json.loads(Path("comparisons/task/gru/result.json").read_text())["steps"] == 8

    def test_begins_anew_if_asked(self, folder):
        run("compare", folder, "--rnns", "gru,exprnn")
        run("compare", folder, "--rnns", "gru", "--seeds", 2)
        Path("comparisons/task/gru/settings.json").write_text("{")
        before = set(Path("comparisons/task/gru").glob("events*"))
        out = run("compare", folder, "--rnns", "gru", "--restart", "--trainer.max_epochs", 1)
        assert "gru: begins" in out
        assert rows()[0]["steps"] == "4"
        for place, begun_anew in (("gru", True), ("gru/seed_0", False), ("gru/seed_1", False), ("exprnn", False)):
            settings = json.loads(Path("comparisons/task", place, "settings.json").read_text())
            assert ("--trainer.max_epochs" in settings["fit"]) == begun_anew
        assert not before & set(Path("comparisons/task/gru").glob("events*"))


class TestShortRuns:
    def test_a_run_that_ends_before_the_first_epoch_does_is_validated_and_compared(self, folder):
        early = {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]}
        task = yaml.safe_load(TASK)
        (folder / "task.yaml").write_text(yaml.safe_dump(task | {"trainer": task["trainer"] | early}))
        run("compare", folder, "--rnns", "gru", "--trainer.max_steps", 2)
        assert rows()[0]["steps"] == "2"
        run("compare", folder, "--rnns", "gru,projunn", "--trainer.max_steps", 2)


class TestRefuses:
    def test_a_folder_without_a_task(self, folder):
        (folder / "task.yaml").unlink()
        message = refused("compare", folder)
        assert "must hold task.yaml and one YAML per recurrent layer, found exprnn, gru, projunn" in message

    def test_a_recurrent_layer_that_the_folder_does_not_have(self, folder):
        message = refused("compare", folder, "--rnns", "gru,ltsm")
        assert "has no ltsm, expected some of exprnn, gru, projunn" in message

    def test_a_mistake_in_a_config_before_the_first_layer_trains(self, folder):
        (folder / "projunn.yaml").write_text("- a list")
        assert "projunn.yaml must be a mapping" in refused("compare", folder)
        assert not Path("comparisons").exists()

    def test_data_without_a_baseline(self, folder, monkeypatch):
        monkeypatch.delattr("projunn_lightning.CopyingMemory.baseline_loss")
        message = refused("compare", folder)
        assert "a comparison needs data with a baseline_loss, and CopyingMemory has none" in message

    def test_a_model_whose_loss_is_not_that_of_the_baseline(self, folder, monkeypatch):
        monkeypatch.setattr("projunn_lightning.SequenceModel.comparable_loss", False)
        message = refused("compare", folder)
        assert "a comparison needs a model whose loss can be compared with the baseline of CopyingMemory" in message

    def test_a_run_without_a_training_step(self, folder):
        message = refused("compare", folder, "--rnns", "gru", "--trainer.max_epochs", 0)
        assert "gru took no training step or logged no test/loss, and cannot be compared" in message

    def test_a_result_that_cannot_be_read(self, folder):
        Path("comparisons/task/gru").mkdir(parents=True)
        Path("comparisons/task/gru/settings.json").write_text("{")
        message = refused("compare", folder, "--rnns", "gru")
        assert "gru/settings.json cannot be read" in message
        assert "pass --restart to begin anew" in message


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
    """The recurrent matrix, the input, the bias and the read-out; a unitary matrix counts N (N - 1) / 2 or N^2."""
    assert degrees_of_freedom(SequenceModel(1, 1, 8, task="regression", **options)) == expected


class TestConfigs:
    @pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
    def test_every_layer_is_there_and_has_about_as_many_degrees_of_freedom_unless_the_header_says_so(self, folder):
        files = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
        task = files.pop("task")["model"]["init_args"]
        assert set(files) == set(RNNS)
        sizes = {}
        for rnn, config in files.items():
            assert config["model"]["init_args"]["rnn"] == rnn
            sizes[rnn] = degrees_of_freedom(SequenceModel(**task | config["model"]["init_args"]))
        for rnn, size in sizes.items():
            few = folder.name == "adding_200" and rnn in ("urnn", "eunn_fft")
            assert (0.4 if few else 0.85) < size / sizes["projunn"] < 1.16, rnn

    @pytest.mark.parametrize(
        "folder",
        [pytest.param(path, marks=pytest.mark.slow if path.name == "adding_200" else ()) for path in FOLDERS],
        ids=lambda path: path.name,
    )
    def test_every_layer_starts(self, folder):
        name = "delay" if "copying" in folder.name else "length"
        small = {name: 5, "train_size": 4, "val_size": 2, "test_size": 2, "batch_size": 2}
        options = [word for key, value in small.items() for word in (f"--data.{key}", value)]
        run("compare", folder, "--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 1, *options)
        assert len(rows(f"comparisons/{folder.name}")) == len(RNNS)
