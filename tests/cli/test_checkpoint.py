from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from projunn_lightning import SequenceModel
from projunn_lightning.cli.checkpoint import check_fits, read_checkpoint
from tests.support import commands
from tests.support.commands import TINY, changed, named, run
from tests.support.own_models import OwnRNN, RenamesKeys

OWN = changed(
    model={"class_path": "tests.support.own_models.OwnRNN"},
    data=named("AddingProblem", length=4, train_size=8, val_size=4, test_size=4),
    projunn={"parameters": ["body.weight_hh_l*"]},
)

# The tiny config has no ModelCheckpoint, and the run that wrote the checkpoint had one.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a run of the tiny config."""
    folder = tmp_path_factory.mktemp("run")
    run("fit", changed(trainer={"enable_checkpointing": True, "default_root_dir": str(folder)}))
    return next(folder.rglob("last.ckpt"))


@pytest.fixture
def contents(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def refused(path, command="fit", config=TINY):
    """The line that refuses a checkpoint. The run must not have made a log folder."""
    logging = config["trainer"] | {"logger": True, "default_root_dir": "logs"}
    message = commands.refused(command, config | {"trainer": logging}, "--ckpt_path", path)
    assert not Path("logs").exists()
    assert message.startswith(f"projunn: error: ckpt_path {path} ")
    assert message.count("\n") == 1
    return message


class TestRefuses:
    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    def test_a_missing_file(self, command):
        assert "missing.ckpt is no file, and no folder of a distributed" in refused("missing.ckpt", command)

    def test_a_folder_that_is_no_distributed_checkpoint(self):
        Path("folder").mkdir()
        assert "folder is no file, and no folder of a distributed checkpoint" in refused("folder")

    def test_a_file_truncated_anywhere(self, checkpoint):
        whole = checkpoint.read_bytes()
        for size in (0, 1, 2, 100, 1000, len(whole) // 2, len(whole) - 100, len(whole) - 1):
            Path("part.ckpt").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"part.ckpt cannot be read: the file is damaged"):
                read_checkpoint("part.ckpt")
        assert "part.ckpt cannot be read: the file is damaged" in refused("part.ckpt")

    @pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"ckpt_path: {}\n", b"PK\3\4", b"\x80\2}q\0"], ids=repr)
    def test_a_file_of_another_format(self, start):
        Path("other.ckpt").write_bytes(start + bytes(range(256)))
        with pytest.raises(ValueError, match=r"other.ckpt cannot be read"):
            read_checkpoint("other.ckpt")

    def test_a_whole_module_which_could_run_code(self):
        torch.save(torch.nn.Linear(2, 2), "module.ckpt")
        with pytest.raises(ValueError, match="objects that torch loads only with --weights_only false") as error:
            read_checkpoint("module.ckpt")
        assert "torch.nn.modules.linear.Linear" in str(error.value.__cause__)

    @pytest.mark.parametrize("command", ["test", "predict"])
    def test_a_plain_state_dict(self, contents, command):
        torch.save(contents["state_dict"], "plain.ckpt")
        assert "plain.ckpt is no checkpoint of Lightning; pass a .ckpt file" in refused("plain.ckpt", command)

    @pytest.mark.parametrize("command", ["fit", "test"])
    def test_the_checkpoint_of_another_model(self, contents, command):
        del contents["hyper_parameters"]  # by which the model would be configured as in the checkpoint
        torch.save(contents, "other.ckpt")
        message = refused("other.ckpt", command, OWN)
        assert "of another model than OwnRNN: body.weight_ih_l0 is missing in the checkpoint" in message
        assert "and has the shape (8, 2) in the model" in message

    def test_the_checkpoint_of_a_model_of_another_size(self, contents):
        del contents["hyper_parameters"]
        contents["state_dict"]["readout.weight"] = torch.zeros(5, 9)
        torch.save(contents, "wide.ckpt")
        message = refused("wide.ckpt")
        assert "readout.weight has the shape (5, 9) in the checkpoint and has the shape (5, 8) in the model" in message

    def test_weights_without_the_state_of_the_optimizer_for_fit(self, contents):
        del contents["optimizer_states"]
        torch.save(contents, "weights.ckpt")
        assert "holds the weights only" in refused("weights.ckpt")
        run("test", TINY, "--ckpt_path", "weights.ckpt")


class TestTakes:
    @pytest.mark.parametrize("command", ["fit", "test"])
    def test_hyperparameters_that_do_not_name_their_class_as_python_code_writes_them(self, contents, command):
        contents["hyper_parameters"] = {"input_size": 6, "output_size": 5, "hidden_size": 8}
        torch.save(contents, "api.ckpt")
        run(command, TINY, "--ckpt_path", "api.ckpt")

    def test_a_checkpoint_without_hyperparameters(self, contents):
        torch.save(contents | {"hyper_parameters": None}, "none.ckpt")
        run("test", TINY, "--ckpt_path", "none.ckpt")

    def test_a_checkpoint_whose_keys_the_model_renames(self):
        model = OwnRNN()
        trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
        trainer.strategy.connect(model)
        trainer.save_checkpoint("old.ckpt")
        saved = torch.load("old.ckpt", weights_only=True)
        saved["state_dict"] = {f"old.{name}": value for name, value in saved["state_dict"].items()}
        check_fits(saved, "old.ckpt", RenamesKeys())
        with pytest.raises(ValueError, match="is a checkpoint of another model than OwnRNN"):
            check_fits(saved, "old.ckpt", model)

    @pytest.mark.parametrize("path", ["best", "last", "hpc", "registry:name:version:3", "s3://bucket/some.ckpt"])
    def test_a_path_that_lightning_resolves(self, path):
        assert read_checkpoint(path) is None

    @pytest.mark.parametrize("part", [".metadata", "checkpoint"])
    def test_the_folder_of_a_distributed_checkpoint(self, part):
        Path("folder.ckpt").mkdir()
        Path("folder.ckpt", part).touch()
        assert read_checkpoint("folder.ckpt") is None

    def test_any_object_with_weights_only_false(self, contents):
        torch.save(contents | {"hyper_parameters": {"path": Path("here")}}, "path.ckpt")
        assert "with --weights_only false" in refused("path.ckpt", "test")
        run("test", TINY, "--ckpt_path", "path.ckpt", "--weights_only", "false")

    def test_the_size_of_the_model_from_a_checkpoint_that_names_its_class(self, checkpoint):
        wide = changed(model=named("SequenceModel", input_size=6, output_size=5))
        run("test", wide, "--ckpt_path", checkpoint)


class TestOptionsBesideTheCheckpoint:
    """They are taken, and said, or refused with both values."""

    def saved(self, **parts):
        """The config and the checkpoint of a new run."""
        trainer = {"enable_checkpointing": True, "default_root_dir": "before"} | parts.pop("trainer", {})
        config = changed(trainer=trainer, **parts)
        run("fit", config)
        (path,) = Path("before").rglob("last.ckpt")
        return config, [
            "--ckpt_path",
            path,
            "--trainer.default_root_dir",
            "after",
            "--trainer.max_steps",
            4,
            "--trainer.max_epochs",
            9,
        ]

    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    def test_an_option_of_the_model_that_fits_the_weights_is_taken(self, command, checkpoint, caplog, monkeypatch):
        rates = []
        monkeypatch.setattr(SequenceModel, "setup", lambda self, stage: rates.append(self.rnn.dropout), raising=False)
        with caplog.at_level("INFO", "lightning"):
            run(command, TINY, "--ckpt_path", checkpoint, "--model.dropout", 0.5)
        assert rates[0] == 0.5
        assert "model.dropout is 0.5, as set beside ckpt_path, and no longer 0.0" in caplog.text

    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    def test_an_option_of_the_model_that_does_not_fit_is_refused_with_both_values(self, command, checkpoint):
        message = commands.refused(command, TINY, "--ckpt_path", checkpoint, "--model.hidden_size", 64)
        assert "ckpt_path" in message
        assert "model.hidden_size is 64, and 8 there; configure the model as in the checkpoint" in message
        assert message.count("\n") == 1

    def test_an_option_in_a_config_counts_as_one_on_the_command_line(self, checkpoint):
        sizes = {"input_size": 6, "output_size": 5, "hidden_size": 16}
        message = commands.refused("test", changed(model=named("SequenceModel", **sizes)), "--ckpt_path", checkpoint)
        assert "model.hidden_size is 16, and 8 there" in message

    def test_another_class_of_model_is_refused(self, checkpoint):
        assert "is a checkpoint of another model than OwnRNN" in refused(checkpoint, "fit", OWN)

    @pytest.mark.parametrize("value", [0.3, 0.002])
    def test_an_option_of_the_optimizer_is_taken(self, value, caplog):
        config, resume = self.saved(lr_scheduler=None)
        with caplog.at_level("INFO", "lightning"):
            run("fit", config, *resume, "--optimizer.lr", value, "--optimizer.alpha", 0.5)
        (after,) = Path("after").rglob("last.ckpt")
        (group,) = torch.load(after, weights_only=True)["optimizer_states"][0]["param_groups"]
        assert (group["lr"], group["alpha"], group["eps"]) == (value, 0.5, 1e-8)
        assert ("optimizer.lr is 0.3, as set beside ckpt_path, and no longer 0.002" in caplog.text) == (value == 0.3)
        assert "optimizer.alpha is 0.5, as set beside ckpt_path, and no longer 0.99" in caplog.text

    @pytest.mark.parametrize(
        ("option", "value", "before"), [("optimizer.lr", 0.3, 0.002), ("lr_scheduler.gamma", 0.9, 0.5)]
    )
    def test_an_option_of_a_schedule_in_mid_course_is_refused_with_both_values(self, option, value, before):
        config, resume = self.saved()
        message = commands.refused("fit", config, *resume, f"--{option}", value)
        assert f"{option} is {value}, and {before} in ckpt_path before" in message
        assert f"whose schedule goes on; set it to {before}\n" in message

    def test_another_class_of_optimizer_is_refused(self):
        config, resume = self.saved()
        message = commands.refused("fit", config, *resume, "--optimizer", "Adam")
        assert "holds the state of another optimizer than Adam: it has no amsgrad, betas" in message

    def test_the_patience_of_early_stopping_is_taken(self, monkeypatch):
        early = named("EarlyStopping", monitor="train/loss", patience=3)
        config, resume = self.saved(trainer={"callbacks": [early]})
        seen = []
        monkeypatch.setattr(EarlyStopping, "on_train_end", lambda self, *_: seen.append(self.patience))
        run("fit", config, *resume, "--trainer.callbacks.patience", 9)
        assert seen == [9]

    def test_the_saved_config_of_the_run_goes_on_with_it(self):
        config = changed(trainer={"enable_checkpointing": True, "logger": True, "max_steps": 2})
        run("fit", config)
        (path,) = Path("lightning_logs").rglob("last.ckpt")
        run(
            "fit",
            "--config",
            "lightning_logs/version_0/config.yaml",
            "--ckpt_path",
            path,
            "--trainer.max_steps",
            4,
            "--trainer.max_epochs",
            9,
        )
