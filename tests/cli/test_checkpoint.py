from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from projunn_lightning.cli.checkpoint import check_fits, read_checkpoint
from tests.cli.test_fuzz import TINY, said
from tests.support.own_models import OwnRNN, RenamesKeys

OWN = {
    "model": {"class_path": "tests.support.own_models.OwnRNN"},
    "data": {"class_path": "AddingProblem", "init_args": {"length": 4, "train_size": 8, "val_size": 4, "test_size": 4}},
    "projunn": {"parameters": ["body.weight_hh_l*"]},
    "trainer": TINY["trainer"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """That of a run of the tiny config."""
    folder = tmp_path_factory.mktemp("run")
    trainer = TINY["trainer"] | {"enable_checkpointing": True, "default_root_dir": str(folder)}
    assert said(TINY | {"trainer": trainer}) is None
    return next(folder.rglob("*.ckpt"))


@pytest.fixture
def contents(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def refused(checkpoint, command="fit", config=TINY):
    """What is said of a checkpoint; fails if the run makes a log folder all the same."""
    logging = TINY["trainer"] | {"logger": True, "default_root_dir": str(Path("logs").absolute())}
    message = said(config | {"trainer": logging}, command, "--ckpt_path", str(Path(checkpoint).absolute()))
    assert not Path("logs").exists()
    assert len(message.strip().splitlines()) == 1
    assert str(checkpoint) in message
    return message


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class TestRefuses:
    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    def test_a_missing_file(self, command):
        assert "missing.ckpt' does not exist; pass a .ckpt file" in refused("missing.ckpt", command)

    @pytest.mark.parametrize("command", ["fit", "validate"])
    def test_a_truncated_file(self, checkpoint, command):
        whole = checkpoint.read_bytes()
        Path("half.ckpt").write_bytes(whole[: len(whole) // 2])
        expected = f"half.ckpt, a file of {len(whole) // 2} bytes, is no checkpoint that torch can read"
        assert expected in refused("half.ckpt", command)

    def test_a_file_truncated_anywhere(self, checkpoint):
        whole = checkpoint.read_bytes()
        for size in (0, 1, 2, 100, 1000, len(whole) - 100, len(whole) - 1):
            Path("part.ckpt").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=f"part.ckpt, a file of {size} bytes, is no checkpoint"):
                read_checkpoint("part.ckpt")

    @pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"ckpt_path: {}\n", b"PK\3\4", b"\x80\2}q\0"], ids=repr)
    def test_a_file_of_another_format(self, start):
        Path("other.ckpt").write_bytes(start + bytes(range(256)))
        with pytest.raises(ValueError, match=r"other.ckpt, a file of \d+ bytes, is no checkpoint that torch can read"):
            read_checkpoint("other.ckpt")

    @pytest.mark.parametrize("command", ["test", "predict"])
    def test_a_plain_state_dict(self, contents, command):
        torch.save(contents["state_dict"], "plain.ckpt")
        expected = (
            "holds a dict of rnn.weight_ih_l0, rnn.bias_l0, rnn.weight_hh_l0 ..., expected a checkpoint of Lightning"
        )
        assert expected in refused("plain.ckpt", command)

    def test_a_whole_module_which_could_run_code(self):
        torch.save(torch.nn.Linear(2, 2), "module.ckpt")
        with pytest.raises(ValueError, match=r"an object of torch.nn.modules.linear.Linear, which torch does not load"):
            read_checkpoint("module.ckpt")

    def test_a_folder_that_is_no_distributed_checkpoint(self):
        Path("folder").mkdir()
        assert "is a folder, and no distributed checkpoint: .metadata is missing" in refused("folder")

    @pytest.mark.parametrize("command", ["fit", "test"])
    def test_one_of_another_model(self, contents, command):
        del contents["hyper_parameters"]  # by which the model would be configured as the checkpoint's
        torch.save(contents, "other.ckpt")
        message = refused("other.ckpt", command, OWN)
        assert "of another model than OwnRNN: body.weight_ih_l0 is not in the checkpoint and of shape (8, 2)" in message

    def test_one_of_another_size(self, contents):
        del contents["hyper_parameters"]
        contents["state_dict"]["readout.weight"] = torch.zeros(5, 9)
        torch.save(contents, "wide.ckpt")
        message = refused("wide.ckpt")
        assert "readout.weight is of shape (5, 9) in the checkpoint and of shape (5, 8) in the model" in message

    def test_weights_only_for_fit_which_needs_the_optimizer(self, contents):
        del contents["optimizer_states"]
        torch.save(contents, "weights.ckpt")
        assert "holds the weights only" in refused("weights.ckpt")
        assert said(TINY, "test", "--ckpt_path", str(Path("weights.ckpt").absolute())) is None


class TestTakes:
    @pytest.mark.parametrize("command", ["fit", "test"])
    def test_one_that_python_code_wrote_without_the_name_of_its_class(self, contents, command):
        contents["hyper_parameters"] = {"input_size": 6, "output_size": 5, "hidden_size": 8}
        torch.save(contents, "api.ckpt")
        assert said(TINY, command, "--ckpt_path", str(Path("api.ckpt").absolute())) is None

    def test_one_without_hyperparameters(self, contents):
        torch.save(contents | {"hyper_parameters": None}, "none.ckpt")
        assert said(TINY, "test", "--ckpt_path", str(Path("none.ckpt").absolute())) is None

    def test_one_whose_keys_the_model_renames(self, tmp_path):
        model = OwnRNN()
        trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
        trainer.strategy.connect(model)
        trainer.save_checkpoint("old.ckpt")
        saved = torch.load("old.ckpt", weights_only=True)
        saved["state_dict"] = {f"old.{name}": value for name, value in saved["state_dict"].items()}
        check_fits(saved, "old.ckpt", RenamesKeys())
        with pytest.raises(ValueError, match="is of another model than OwnRNN"):
            check_fits(saved, "old.ckpt", model)

    @pytest.mark.parametrize("name", [".metadata", "meta.pt", "checkpoint"])
    def test_a_folder_of_a_distributed_one(self, name):
        Path("folder.ckpt").mkdir()
        Path("folder.ckpt", name).touch()
        assert read_checkpoint("folder.ckpt") is None

    def test_what_torch_is_asked_to_load_whatever_it_holds(self, contents):
        torch.save(contents | {"hyper_parameters": {"path": Path("here")}}, "path.ckpt")
        path = ("--ckpt_path", str(Path("path.ckpt").absolute()))
        assert "pathlib.PosixPath" in said(TINY, "test", *path)
        assert said(TINY, "test", *path, "--weights_only", "false") is None

    def test_the_size_from_one_that_names_its_class(self, checkpoint):
        wide = TINY | {"model": {"class_path": "SequenceModel", "init_args": {"input_size": 6, "output_size": 5}}}
        assert said(wide, "test", "--ckpt_path", str(checkpoint)) is None
