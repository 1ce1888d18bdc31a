from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

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
    return next(folder.rglob("*.ckpt"))


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
