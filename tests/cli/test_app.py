import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from projunn_lightning import SequenceModel, UnitarityMonitor
from projunn_lightning.cli import main, run_cli
from projunn_lightning.functional import unitarity_error

ROOT = Path(__file__).parents[2]
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


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # examples.own_model
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture
def quick(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return str(path)


def command(*args):
    sys.argv = ["projunn", *map(str, args)]
    main()


def run(capsys, *args):
    """What the command prints; fails on an exit code."""
    command(*args)
    return capsys.readouterr().out


def refused(capsys, *args):
    """The last lines of what the command says as it refuses."""
    with pytest.raises(SystemExit) as stop:
        command(*args)
    assert stop.value.code == 2
    return capsys.readouterr().err


def scalars(version=0):
    accumulator = EventAccumulator(f"lightning_logs/version_{version}")
    accumulator.Reload()
    return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def checkpoint(version=0):
    return next(Path(f"lightning_logs/version_{version}/checkpoints").glob("*.ckpt"))


class TestFit:
    def test_trains_and_ends_with_the_test_loss_beside_the_baseline(self, capsys, quick):
        out = run(capsys, "fit", "--config", quick)
        assert "unitarity_error" in out
        assert "train/loss" in out
        last = out.strip().splitlines()[-1]
        line = r"test loss [\d.]+  \(baseline 0\.396; [\d.]+ % of it\)  accuracy [\d.]+ %"  # 2 ln 4 / 7
        assert re.fullmatch(line, last)
        assert f"accuracy {100 * scalars()['test/accuracy'][0]:.4g} %" in last
        model = SequenceModel.load_from_checkpoint(checkpoint())
        assert unitarity_error(model.rnn.weight_hh_l0) < 1e-6

    def test_tensorboard_has_losses_metrics_learning_rate_unitarity_and_skips(self, capsys, quick):
        run(capsys, "fit", "--config", quick)
        logged = scalars()
        for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy"):
            assert logged[tag], tag
        assert max(logged["unitarity_error"]) < 1e-6
        assert set(logged["skipped_updates"]) == set(logged["reorthonormalisations"]) == {0.0}
        assert {round(rate, 6) for rate in logged["lr-RMSprop"]} == {0.002, 0.001}

    @pytest.mark.filterwarnings("ignore:.*configure_optimizers. will be overridden")
    def test_a_monitor_that_the_user_configured_is_the_only_one(self, quick, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["projunn"])
        cli = run_cli(["fit", "--config", quick, "--trainer.callbacks", "UnitarityMonitor"])
        assert sum(isinstance(callback, UnitarityMonitor) for callback in cli.trainer.callbacks) == 1

    def test_the_saved_config_repeats_the_run(self, capsys, quick):
        first = run(capsys, "fit", "--config", quick).strip().splitlines()[-1]
        again = run(capsys, "fit", "--config", "lightning_logs/version_0/config.yaml").strip().splitlines()[-1]
        assert first == again
        weights = [torch.load(checkpoint(v), weights_only=False)["state_dict"] for v in (0, 1)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_options_override_the_config(self, capsys, quick):
        run(
            capsys,
            "fit",
            "--config",
            quick,
            "--projunn.rank",
            3,
            "--projunn.retraction",
            "polar",
            "--optimizer",
            "Adam",
        )
        saved = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
        assert saved["projunn"]["rank"] == 3
        assert saved["projunn"]["retraction"] == "polar"
        assert saved["optimizer"]["class_path"] == "torch.optim.Adam"
        assert saved["seed_everything"] == 7

    def test_without_a_logger_or_an_optimizer(self, capsys, quick):
        off = ["--trainer.logger", "false", "--optimizer", "null", "--lr_scheduler", "null"]
        for _ in range(2):  # the second run finds what the first has left
            assert "test loss" in run(capsys, "fit", "--config", quick, *off)
        assert not Path("lightning_logs").exists()
        assert not Path("config.yaml").exists()
        saved = torch.load(next(Path("checkpoints").glob("*.ckpt")), weights_only=False)
        assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-3  # the model's own RMSprop

    @pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
    def test_every_config_starts(self, capsys, config):
        smoke = re.search(r"projunn (fit [^#\n]*smoke\.yaml[^#\n]*)", config.read_text())
        if smoke:  # images: by the command that its header shows, which needs no data
            args = smoke[1].replace("configs/", f"{config.parent}/").split()
            assert str(config) in args
        else:
            args = ["fit", "--config", config, "--data.test_size", 4, "--data.val_size", 4]
        out = run(capsys, *args, "--data.batch_size", 2, "--trainer.fast_dev_run", 2, "--trainer.accelerator", "cpu")
        line = r"test loss \S+  \(baseline \S+; \S+ % of it\)(  accuracy \S+ %)?"
        assert re.fullmatch(line, out.strip().splitlines()[-1])

    def test_every_config_says_what_it_is_and_how_to_run_it(self):
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
    def test_constrains_modules_that_nobody_prepared_by_pattern_from_yaml(self, capsys, quick, name, patterns, names):
        own = {
            "model": {"class_path": f"tests.support.own_models.{name}"},
            "data": {"class_path": "AddingProblem", "init_args": {"length": 4, "train_size": 200}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
            "projunn": {"parameters": patterns},
            "trainer": {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 2},
        }
        Path("own.yaml").write_text(yaml.safe_dump(own))
        run(capsys, "fit", "--config", "own.yaml")
        saved = torch.load(checkpoint(), weights_only=True)
        (state,) = (s for key, s in saved["callbacks"].items() if key.startswith("ProjUNN"))
        assert {name: s["step"] for name, s in state.items()} == dict.fromkeys(names, 4)
        for weight in (saved["state_dict"][name] for name in names):
            n, p = weight.shape[0], weight[0].numel()
            chunks = n // p if n in (3 * p, 4 * p) else 1
            assert unitarity_error(weight.reshape(chunks, n // chunks, p)).max() < 1e-6

    @pytest.mark.filterwarnings("default:no parameter is declared:UserWarning")
    def test_a_model_with_nothing_to_constrain_trains_as_it_is_with_a_warning(self, capsys):
        args = [
            "--model",
            "tests.support.own_models.OwnRNN",
            "--data",
            "AddingProblem",
            "--data.length",
            4,
            "--data.train_size",
            50,
        ]
        with pytest.warns(UserWarning, match="the model trains without projUNN"):
            run(capsys, "fit", *args, "--optimizer", "SGD", "--optimizer.lr", 0.1, "--trainer.fast_dev_run", 1)

    def test_constrains_what_a_model_declares_once_it_is_set_up(self, capsys):
        args = ["--model", "tests.support.own_models.BuildsLater", "--data", "AddingProblem", "--data.length", 4]
        run(capsys, "fit", *args, "--optimizer", "SGD", "--optimizer.lr", 0.1, "--trainer.max_steps", 5)
        weight = torch.load(checkpoint(), weights_only=True)["state_dict"]["body.1.weight"]
        assert unitarity_error(weight) < 1e-6


class TestOtherCommands:
    def test_validate_test_and_predict_take_a_checkpoint(self, capsys, quick):
        fit = run(capsys, "fit", "--config", quick).strip().splitlines()[-1]
        assert "val/loss" in run(capsys, "validate", "--config", quick, "--ckpt_path", checkpoint())
        assert run(capsys, "test", "--config", quick, "--ckpt_path", checkpoint()).strip().splitlines()[-1] == fit
        assert "Predicting" in run(capsys, "predict", "--config", quick, "--ckpt_path", checkpoint())

    def test_predict_writes_its_predictions_beside_the_run_and_says_where(self, capsys, quick):
        run(capsys, "fit", "--config", quick)
        config = "lightning_logs/version_0/config.yaml"
        out = run(capsys, "predict", "--config", config, "--ckpt_path", checkpoint())
        assert out.strip().splitlines()[-1].endswith("lightning_logs/version_1/predictions.pt")
        written = torch.load("lightning_logs/version_1/predictions.pt")
        assert written.shape == (64, 7)  # classes of 64 samples at 2 * memory_length + delay steps
        assert written.max() < 5
        args = ["predict", "--config", quick, "--ckpt_path", checkpoint(), "--predictions.path", "here/mine.pt"]
        assert run(capsys, *args).strip().splitlines()[-1] == "predictions: here/mine.pt"
        assert torch.equal(torch.load("here/mine.pt"), written)
        versions = sorted(Path("lightning_logs").iterdir())
        assert "are not written over here/mine.pt, which exists: choose another path" in refused(capsys, *args)
        assert sorted(Path("lightning_logs").iterdir()) == versions

    def test_predict_refuses_weights_that_were_never_trained(self, capsys, quick):
        err = refused(capsys, "predict", "--config", quick)
        assert "projunn: error: predict needs a trained model, and ckpt_path is not set: pass --ckpt_path" in err
        assert [path.name for path in Path().iterdir()] == ["quick.yaml"]

    def test_predict_leaves_writing_to_a_writer_that_is_configured(self, capsys, quick):
        run(capsys, "fit", "--config", quick)
        own = "--trainer.callbacks={class_path: projunn_lightning.PredictionWriter, init_args: {path: own.pt}}"
        run(capsys, "predict", "--config", quick, "--ckpt_path", checkpoint(), own)
        assert [path.name for path in Path().rglob("*.pt")] == ["own.pt"]

    def test_print_config_prints_yaml_that_can_be_fed_back(self, capsys, quick):
        with pytest.raises(SystemExit) as stop:
            command("fit", "--config", quick, "--projunn.rank", 2, "--print_config")
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert yaml.safe_load(out)["projunn"]["rank"] == 2
        Path("printed.yaml").write_text(out)
        run(capsys, "fit", "--config", "printed.yaml", "--trainer.fast_dev_run", 1)

    @pytest.mark.parametrize(
        "command",
        [["projunn"], pytest.param([sys.executable, "-m", "projunn_lightning"], marks=pytest.mark.slow)],
        ids=["projunn", "-m"],
    )
    def test_the_command_and_the_module_are_the_same(self, command, quick):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        args = ["fit", "--config", quick, "--trainer.fast_dev_run", "1"]
        done = subprocess.run([*command, *args], capture_output=True, text=True, env={**os.environ, "PATH": path})
        assert done.returncode == 0, done.stderr
        assert "test loss" in done.stdout


class TestRefuses:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--projunn.retraction", "polar"], r"projunn.retraction"),
            (["--projunn.sampler", "qr"], r"projunn.sampler"),
            (["--projunn.rank", 0], "projunn: error: rank must be a whole number of 1 or more, found 0"),
            (["--projunn.rank", 17], "projunn: error: rank 17 is above min(n, p) = 16 of rnn.weight_hh_l0 (16 x 16)"),
            (
                ["--projunn.parameters", "rnn.weight_hx"],
                "matches no parameter of SequenceModel; near misses: rnn.weight_",
            ),
            (["--projunn.parameters", "rnn.*"], "rnn.bias_l0 has shape (16,); only parameters of 2 or more"),
            (["--projunn.lr_divider", -1], "lr_divider must be positive, found -1.0"),
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
    def test_bad_values_in_a_line_that_names_them_and_writes_no_file(self, capsys, quick, args, message):
        assert message in refused(capsys, "fit", "--config", quick, *args)
        assert [path.name for path in Path().iterdir()] == ["quick.yaml"]

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--model.input_size", 3], "projunn: error: an input is no integer from 0 to input_size - 1 = 2"),
            (["--model.output_size", 3, "--model.ignore_index", "null"], "a target is no class below output_size = 3"),
        ],
        ids=str,
    )
    def test_sizes_that_do_not_fit_the_data_at_the_first_batch(self, capsys, quick, args, message):
        assert message in refused(capsys, "fit", "--config", quick, *args)

    def test_a_source_without_data_and_says_what_to_pass(self, capsys, tmp_path):
        (tmp_path / "empty").mkdir()
        config = ROOT / "configs" / "sequential_mnist.yaml"
        err = refused(capsys, "fit", "--config", config, "--data.source", "empty")
        assert "projunn: error: source 'empty' is a local folder, and datasets.load_dataset cannot read it" in err
        assert "'rendered-digits'" in err

    def test_images_without_the_packages_for_them(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        config = ROOT / "configs" / "sequential_mnist.yaml"
        assert "projunn: error: datasets is not installed" in refused(capsys, "fit", "--config", config)

    def test_names_a_variant_it_does_not_know_and_lists_those_it_does(self, capsys, quick):
        err = refused(capsys, "fit", "--config", quick, "--projunn.retraction", "polar")
        assert all(word in err for word in ("polar", "polar", "exponential", "cayley"))

    def test_a_mistake_in_the_user_s_own_code_keeps_its_traceback(self, capsys, quick):
        with pytest.raises(ValueError, match="of the user's own making"):
            command("fit", "--config", quick, "--model", "tests.support.own_models.Failing")
        data = ["--data", "AddingProblem", "--data.length", "4", "--trainer.max_epochs", "1"]
        with pytest.raises(ValueError, match="I = 3 features"):  # that our own layer refuses
            command(
                "fit",
                "--model",
                "tests.support.own_models.TakesThree",
                *data,
                "--optimizer",
                "SGD",
                "--optimizer.lr",
                "0.1",
            )
        with pytest.raises(ValueError, match="of the user's own making, with a cause"):
            command("fit", "--config", quick, "--model", "tests.support.own_models.FailingWithCause")
