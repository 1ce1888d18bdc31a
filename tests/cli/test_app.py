import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from projunn_lightning import SequenceModel, UnitarityMonitor
from projunn_lightning.cli import run_cli
from projunn_lightning.functional import unitarity_error
from tests.support.commands import ROOT, changed, ended, named, refused, run

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
QUICK = """
seed_everything: 7
model: {class_path: SequenceModel, init_args: {input_size: 6, output_size: 5, hidden_size: 16, ignore_index: 4}}
data: {class_path: CopyingMemory, init_args: {delay: 3, memory_length: 2, alphabet_size: 4, batch_size: 16,
  train_size: 160, val_size: 32, test_size: 64}}
optimizer: {class_path: torch.optim.RMSprop, init_args: {lr: 0.002}}
lr_scheduler: {class_path: torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.5}}
projunn: {lr_divider: 4}
trainer: {accelerator: cpu, max_epochs: 2, log_every_n_steps: 5}
"""
SIZES = {"input_size": 6, "output_size": 5}
OWN = ["--data", "AddingProblem", "--data.length", 4, "--optimizer", "SGD", "--optimizer.lr", 0.1]


@pytest.fixture(autouse=True)
def _with_the_examples_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # examples.own_model


@pytest.fixture
def quick(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return str(path)


def scalars(version=0):
    accumulator = EventAccumulator(f"lightning_logs/version_{version}")
    accumulator.Reload()
    return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def checkpoint(version=0):
    return Path(f"lightning_logs/version_{version}/checkpoints/last.ckpt")


def last_line(out):
    return out.strip().splitlines()[-1]


def result(out):
    (line,) = (line for line in out.splitlines() if line.startswith("test loss"))
    return line


class TestFit:
    def test_trains_and_logs_and_ends_with_the_test_loss_beside_the_baseline(self, quick):
        out = run("fit", "--config", quick)
        assert "unitarity_error" in out
        assert "train/loss" in out
        line = r"test loss [\d.]+  \(baseline 0\.396; [\d.]+ % of it\)  accuracy [\d.]+ %"  # 2 ln 4 / 7
        assert re.fullmatch(line, result(out))
        logged = scalars()
        assert f"accuracy {100 * logged['z_test/accuracy'][0]:.4g} %" in result(out)
        for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "z_test/loss", "z_test/accuracy"):
            assert logged[tag], tag
        assert max(logged["weights/largest_unitarity_error"]) < 1e-6
        assert set(logged["weights/skipped_updates"]) == set(logged["weights/reorthonormalisations"]) == {0.0}
        assert {round(rate, 6) for rate in logged["train/lr-RMSprop"]} == {0.002, 0.001}
        model = SequenceModel.load_from_checkpoint(checkpoint())
        assert unitarity_error(model.rnn.weight_hh_l0) < 1e-6

    def test_a_monitor_that_the_user_configured_is_the_only_one(self, quick, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["projunn"])
        cli = run_cli(["--config", quick, "--trainer.callbacks", "UnitarityMonitor"], run=False)
        assert sum(isinstance(callback, UnitarityMonitor) for callback in cli.trainer.callbacks) == 1

    def test_the_saved_config_repeats_the_run(self, quick):
        first = result(run("fit", "--config", quick))
        again = result(run("fit", "--config", "lightning_logs/version_0/config.yaml"))
        assert first == again
        weights = [torch.load(checkpoint(v), weights_only=False)["state_dict"] for v in (0, 1)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    @pytest.mark.parametrize(
        "watcher",
        [
            {"trainer": {"callbacks": [named("EarlyStopping", monitor="val/loss")]}},
            {"trainer": {"callbacks": [named("ModelCheckpoint", monitor="val/loss")]}},
            {"lr_scheduler": named("ReduceLROnPlateau", monitor="val/loss")},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("steps", [3, 10, 13])
    def test_a_short_run_ends_with_a_validation(self, quick, watcher, steps):
        assert "test loss" in run(
            "fit", "--config", quick, "--config", yaml.safe_dump(watcher), "--trainer.max_steps", steps
        )
        assert len(scalars()["val/loss"]) == (2 if steps > 10 else 1)  # an epoch has 10 steps

    def test_options_override_the_config(self, quick):
        options = ["--projunn.rank", 3, "--projunn.retraction", "polar", "--optimizer", "Adam"]
        run("fit", "--config", quick, *options)
        saved = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
        assert saved["projunn"]["rank"] == 3
        assert saved["projunn"]["retraction"] == "polar"
        assert saved["optimizer"]["class_path"] == "torch.optim.Adam"
        assert saved["seed_everything"] == 7

    def test_runs_without_a_logger_and_an_optimizer(self, quick):
        off = ["--trainer.logger", "false", "--optimizer", "null", "--lr_scheduler", "null"]
        for _ in range(2):  # the second run finds what the first has left
            assert "test loss" in run("fit", "--config", quick, *off)
        assert not Path("lightning_logs").exists()
        assert not Path("config.yaml").exists()
        saved = torch.load(Path("checkpoints/last.ckpt"), weights_only=False)
        assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-3  # the model's own RMSprop

    @pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
    def test_every_config_starts(self, config):
        smoke = re.search(r"projunn (fit [^#\n]*smoke\.yaml[^#\n]*)", config.read_text())
        if smoke:  # images: by the command that its header shows, which needs no data
            args = smoke[1].replace("configs/", f"{config.parent}/").split()
            assert str(config) in args
        else:
            args = ["fit", "--config", config, "--data.test_size", 4, "--data.val_size", 4]
        if config.stem == "random_unitary":  # 2048 takes 4 s
            args += ["--data.size", 64, "--model.size", 64]
        out = run(*args, "--data.batch_size", 2, "--trainer.fast_dev_run", 2, "--trainer.accelerator", "cpu")
        baseline = r"  \(baseline \S+; (\S+ % of it|more than 10 times it)\)"
        other_loss = "temperature" in config.read_text()  # which is not compared
        certified = r"(  certified accuracy \S+ %)" if other_loss else ""
        line = rf"test loss \S+{'' if other_loss else baseline}(  accuracy \S+ %)?{certified}"
        assert re.fullmatch(line, result(out))

    def test_the_header_of_every_config_says_how_to_run_it_and_what_to_expect(self):
        for config in CONFIGS:
            header = [line for line in config.read_text().splitlines() if line.startswith("#")]
            assert any(line.startswith(f"#   projunn fit --config configs/{config.name}") for line in header)
            expected = ("Expect:", "Measured", "Published", "ends at")
            assert any(word in " ".join(header) for word in expected), config.name

    @pytest.mark.parametrize(
        ("name", "patterns", "names"),
        [
            ("OwnRNN", ["body.weight_hh_l*"], ["body.weight_hh_l0", "body.weight_hh_l1"]),
            ("OwnLSTM", ["body.weight_hh_l0"], ["body.weight_hh_l0"]),
            ("OwnLinear", ["body.*.weight"], ["body.0.weight", "body.1.weight", "body.2.weight"]),
            ("OwnConv", ["*.conv.weight"], ["body.conv.weight"]),
            (
                "OwnAttention",
                ["*in_proj_weight", "*out_proj.weight"],
                ["body.mha.in_proj_weight", "body.mha.out_proj.weight"],
            ),
        ],
    )
    def test_constrains_by_pattern_the_weights_of_a_model_that_nobody_prepared(self, name, patterns, names):
        own = {
            "model": {"class_path": f"tests.support.own_models.{name}"},
            "data": named("AddingProblem", length=4, train_size=200),
            "optimizer": named("torch.optim.Adam", lr=0.01),
            "projunn": {"parameters": patterns},
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 2},
        }
        run("fit", own)
        saved = torch.load(checkpoint(), weights_only=True)
        (state,) = (s for key, s in saved["callbacks"].items() if key.startswith("ProjUNN"))
        assert {name: s["step"] for name, s in state.items()} == dict.fromkeys(names, 4)
        for weight in (saved["state_dict"][name] for name in names):
            n, p = weight.shape[0], weight[0].numel()
            chunks = n // p if n in (3 * p, 4 * p) else 1
            assert unitarity_error(weight.reshape(chunks, n // chunks, p)).max() < 1e-6

    @pytest.mark.parametrize("chunks", [6, [6, 4, 2]], ids=str)
    def test_takes_weights_apart_as_a_config_or_an_option_says(self, chunks):
        args = ["fit", "--model", "tests.support.own_models.OwnLinear", *OWN, "--trainer.max_steps", 3]
        Path("apart.yaml").write_text(yaml.safe_dump({"projunn": {"parameters": "body.1.weight", "chunks": chunks}}))
        run(*args, "--config", "apart.yaml")
        run(*args, "--projunn.parameters", "body.1.weight", "--projunn.chunks", chunks)
        for version in (0, 1):
            weight = torch.load(checkpoint(version), weights_only=True)["state_dict"]["body.1.weight"]
            assert max(unitarity_error(part) for part in weight.split([2] * 6 if chunks == 6 else chunks)) < 1e-6

    @pytest.mark.filterwarnings("default:no parameter is declared:UserWarning")
    def test_a_model_with_nothing_to_constrain_trains_as_it_is_with_a_warning(self):
        with pytest.warns(UserWarning, match="the model trains without projUNN"):
            run("fit", "--model", "tests.support.own_models.OwnRNN", *OWN, "--trainer.fast_dev_run", 1)

    def test_constrains_a_layer_that_a_model_builds_when_it_is_set_up(self):
        run("fit", "--model", "tests.support.own_models.BuildsLater", *OWN, "--trainer.max_steps", 5)
        saved = torch.load(checkpoint(), weights_only=True)
        assert unitarity_error(saved["state_dict"]["body.1.weight"]) < 1e-6
        assert len(saved["optimizer_states"][0]["param_groups"][0]["params"]) == 6  # head, and two layers built later


class TestTheTestResult:
    def test_of_a_model_that_logs_it_by_other_names_is_a_table(self):
        options = ["--projunn.parameters", "body.weight_hh_l*", "--trainer.max_steps", 1]
        out = run("fit", "--model", "tests.support.own_models.LogsTestLoss", *OWN, *options)
        assert "test_loss" in out
        assert "0.25" in out

    def test_of_a_model_of_the_package_is_one_line(self, quick):
        assert "Test metric" not in run("fit", "--config", quick)


class TestSeeds:
    """``--seed_everything`` seeds data and sketches, unless they are set."""

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ([], (7, 7)),
            (["--seed_everything", 3], (3, 3)),
            (["--seed_everything", "false"], (0, 0)),
            (["--data.seed", 5], (5, 7)),
            (["--projunn.seed", 0, "--seed_everything", 4], (4, 0)),
        ],
        ids=str,
    )
    def test_of_data_and_sketches(self, quick, options, expected):
        run("fit", "--config", quick, "--trainer.max_steps", 1, *options)
        saved = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
        assert (saved["data"]["init_args"]["seed"], saved["projunn"]["seed"]) == expected

    def test_a_random_seed_is_that_of_all(self, quick):
        run("fit", "--config", quick, "--trainer.max_steps", 1, "--seed_everything", "true")
        saved = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
        seed = saved["seed_everything"]
        assert seed is not True
        assert seed == saved["data"]["init_args"]["seed"] == saved["projunn"]["seed"]


class TestOtherSubcommands:
    def test_validate_test_and_predict_take_a_checkpoint(self, quick):
        fit = result(run("fit", "--config", quick))
        assert "val/loss" in run("validate", "--config", quick, "--ckpt_path", checkpoint())
        assert result(run("test", "--config", quick, "--ckpt_path", checkpoint())) == fit
        assert "Predicting" in run("predict", "--config", quick, "--ckpt_path", checkpoint())

    def test_predict_writes_its_predictions_beside_the_run_and_says_where(self, quick):
        run("fit", "--config", quick)
        config = "lightning_logs/version_0/config.yaml"
        out = run("predict", "--config", config, "--ckpt_path", checkpoint())
        content = ", a tensor (64, 7) of int64; torch.load reads it"
        assert last_line(out).endswith(f"lightning_logs/version_1/predictions.pt{content}")
        written = torch.load("lightning_logs/version_1/predictions.pt")
        assert written.shape == (64, 7)  # classes of 64 samples at 2 * memory_length + delay steps
        assert written.max() < 5
        args = ["predict", "--config", quick, "--ckpt_path", checkpoint(), "--predictions.path", "here/mine.pt"]
        assert last_line(run(*args)) == f"predictions: here/mine.pt{content}"
        assert torch.equal(torch.load("here/mine.pt"), written)
        versions = sorted(Path("lightning_logs").iterdir())
        assert "are not written over here/mine.pt, which exists: choose another path" in refused(*args)
        assert sorted(Path("lightning_logs").iterdir()) == versions

    def test_predict_refuses_weights_that_were_never_trained(self, quick):
        message = refused("predict", "--config", quick)
        assert "projunn: error: predict needs a trained model, and ckpt_path is not set; pass a .ckpt file" in message
        assert [path.name for path in Path().iterdir()] == ["quick.yaml"]

    def test_predict_leaves_writing_to_a_writer_that_is_configured(self, quick):
        run("fit", "--config", quick)
        own = "--trainer.callbacks={class_path: projunn_lightning.PredictionWriter, init_args: {path: own.pt}}"
        run("predict", "--config", quick, "--ckpt_path", checkpoint(), own)
        assert [path.name for path in Path().rglob("*.pt")] == ["own.pt"]

    def test_print_config_prints_yaml_that_can_be_fed_back(self, quick):
        out = run("fit", "--config", quick, "--projunn.rank", 2, "--print_config")
        assert yaml.safe_load(out)["projunn"]["rank"] == 2
        Path("printed.yaml").write_text(out)
        run("fit", "--config", "printed.yaml", "--trainer.fast_dev_run", 1)


class TestRefusesInALineThatNamesTheSetting:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--projunn.sampler", "qr"], "projunn.sampler"),
            (["--projunn.rank", 0], "projunn: error: rank must be a whole number of 1 or more, or 'full', found 0"),
            (["--projunn.feedback", 1], "projunn: error: feedback must be in [0, 1), found 1.0"),
            (
                ["--projunn.parameters", "rnn.weight_hx"],
                "matches no parameter of SequenceModel; near misses: rnn.weight_",
            ),
            (["--projunn.parameters", "rnn.bias*"], "that are no matrices: rnn.bias_l0 has shape (16,)"),
            (["--projunn.chunks", "4"], "projunn: error: chunks=4 is for the parameters that patterns choose"),
            (["--projunn.lr_divider", -1], "lr_divider must be positive and finite, found -1.0"),
            (
                ["--trainer.precision", "bf16-true"],
                "precision='bf16-true' keeps weights in half precision",
            ),
            (["--data.delay", 0], "projunn: error: delay must be 1 or more, found 0"),
            (["--data.batch_size", -3], "projunn: error: batch_size must be 1 or more, found -3"),
            (["--model.hidden_size", 0], "projunn: error: hidden_size must be 1 or more, found 0"),
            (["--model.nonlinearity", "gelu"], "modrelu"),
            (["--projunn.rnk", 2], "projunn.rnk"),
        ],
        ids=str,
    )
    def test_a_bad_value_before_a_file_is_written(self, quick, args, message):
        assert message in refused("fit", "--config", quick, *args)
        assert [path.name for path in Path().iterdir()] == ["quick.yaml"]

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--model.input_size", 3], "projunn: error: an input is no integer from 0 to input_size - 1 = 2"),
            (["--model.output_size", 3, "--model.ignore_index", "null"], "a target is no class below output_size = 3"),
        ],
        ids=str,
    )
    def test_sizes_that_do_not_fit_the_data_at_the_first_batch(self, quick, args, message):
        assert message in refused("fit", "--config", quick, *args)

    def test_a_source_without_data(self, tmp_path):
        (tmp_path / "empty").mkdir()
        config = ROOT / "configs" / "sequential_mnist.yaml"
        message = refused("fit", "--config", config, "--data.source", "empty")
        assert "projunn: error: source 'empty' is a local folder, and datasets.load_dataset cannot read it" in message
        assert "'rendered-digits'" in message

    def test_images_without_the_packages_for_them(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        config = ROOT / "configs" / "sequential_mnist.yaml"
        assert "projunn: error: datasets is not installed" in refused("fit", "--config", config)

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("projunn.lr_divider", "abc", "projunn.lr_divider must be float or dot import path string, found abc"),
            ("projunn.rank", "abc", "projunn.rank must be int or Literal['full'], found abc"),
            ("projunn.seed", 1.5, "projunn.seed must be int, found 1.5"),
            ("model.dropout", "abc", "model.dropout must be float, found abc"),
            ("data.delay", "abc", "data.delay must be int, found abc"),
            ("optimizer.lr", "abc", "optimizer.lr must be float or dot import path string, found abc"),
            ("trainer.max_epochs", "abc", "trainer.max_epochs must be int, found abc"),
            ("seed_everything", "abc", "seed_everything must be bool or int, found abc"),
            ("trainer.callbacks", "NoSuchThing", "trainer.callbacks: there is no class NoSuchThing"),
            ("model", "NoSuchThing", "model: there is no class NoSuchThing"),
        ],
    )
    def test_a_value_of_a_wrong_type_in_one_line(self, quick, option, value, message):
        status, _, err = ended("fit", "--config", quick, f"--{option}", value)
        assert status == 2
        assert err.startswith(f"projunn: error: {message}")
        assert err.count("\n") == 1

    def test_an_unknown_retraction_with_those_that_there_are(self, quick):
        message = refused("fit", "--config", quick, "--projunn.retraction", "qr")
        assert all(word in message for word in ("qr", "polar", "exponential", "cayley"))

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"projunn": 5.5}, "projunn must be a mapping of its options, found 5.5"),
            ({"projunn": {"tolerance": None}}, "tolerance must be a number, found None"),
            ({"model": named("SequenceModel", **SIZES, num_layers=None)}, "num_layers must have a value, found null"),
            ({"model": named("SequenceModel", **SIZES, hidden_size=10**30)}, "hidden_size must be below 2**63"),
            ({"model": named("SequenceModel", **SIZES, dropout=2)}, "dropout must be in [0, 1), found 2.0"),
            ({"model": named("SequenceModel", **SIZES, learning_rate=-1)}, "learning_rate must be a finite number of"),
            ({"model": named("UnitaryMatch", size=-1)}, "size must be 1 or more, found -1"),
        ],
        ids=str,
    )
    def test_a_bad_value_in_a_config(self, parts, message):
        line = refused("fit", changed(**parts))
        assert line.startswith("projunn: error: ")
        assert message in line
        assert line.count("\n") == 1


class TestAnErrorOfAnotherLibraryNamesTheClassThatWasMade:
    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"optimizer": named("torch.optim.SGD", lr=-1)}, "SGD: ValueError: Invalid learning rate: -1.0"),
            ({"optimizer": named("torch.optim.Adam", fused=True, foreach=True)}, "Adam: RuntimeError: `fused` and"),
            (
                {"lr_scheduler": named("torch.optim.lr_scheduler.LinearLR", start_factor=0)},
                "LinearLR: ValueError: Starting multiplicative factor",
            ),
            ({"trainer": {"max_epochs": -7}}, "Trainer: MisconfigurationException: `max_epochs` must be a non-nega"),
            ({"trainer": {"max_steps": None}}, "Trainer: TypeError: '<' not supported"),
            (
                {"trainer": {"callbacks": named("ModelCheckpoint", save_top_k=-5)}},
                "ModelCheckpoint: MisconfigurationException: Invalid value for save_top_k=-5",
            ),
            (
                {"trainer": {"callbacks": [named("EarlyStopping", monitor="loss", mode="most")]}},
                "EarlyStopping: MisconfigurationException: `mode` can be min, max, got most",
            ),
            ({"seed_everything": 10**30}, f"seed_everything: ValueError: {10**30} is not in bounds"),
            ({"model": named("UnitaryMatch", size=10**7)}, "UnitaryMatch: RuntimeError: "),  # 800 TB
        ],
        ids=str,
    )
    def test_in_one_line_with_a_hint(self, parts, message):
        line = refused("fit", changed(**parts))
        assert line.startswith(f"projunn: error: {message}")
        assert line.endswith(" (PROJUNN_TRACEBACK=1 shows where)\n")
        assert line.count("\n") == 1

    @pytest.mark.parametrize("kind", [TypeError, ValueError, RuntimeError, ImportError])
    def test_of_the_user_s_own_class(self, monkeypatch, kind):
        monkeypatch.setattr("tests.support.own_models.Failing.error", kind)
        line = refused("fit", changed(model={"class_path": "tests.support.own_models.Failing"}))
        start = f"projunn: error: Failing: {kind.__name__}: of the user's own making"
        assert line == f"{start} (PROJUNN_TRACEBACK=1 shows where)\n"

    def test_but_an_error_of_another_type_keeps_its_traceback(self, monkeypatch):
        monkeypatch.setattr("tests.support.own_models.Failing.error", KeyError)
        with pytest.raises(Exception, match="of the user's own making") as error:
            ended("fit", changed(model={"class_path": "tests.support.own_models.Failing"}))
        assert isinstance(error.value.__cause__, KeyError)
