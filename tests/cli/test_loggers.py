"""Loggers by name write where the default logger does, and a run has one folder."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger

from projunn_lightning.cli.loggers import place_loggers
from tests.support.commands import changed, run

LOGGED = changed(trainer={"logger": True, "enable_checkpointing": True})


class Service(Logger):
    """A logger of a service: the folder of a run is not its ``save_dir``."""

    save_dir = "kept"
    name = "project"
    version = "abc"

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@pytest.mark.parametrize("name", ["TensorBoardLogger", "CSVLogger"])
@pytest.mark.parametrize(("options", "root"), [([], "."), (["--trainer.default_root_dir", "root"], "root")], ids=str)
def test_a_logger_by_name_writes_where_the_default_logger_does(name, options, root):
    run("fit", LOGGED, "--trainer.logger", name, *options)
    folder = Path(root, "lightning_logs/version_0")
    assert (folder / "config.yaml").is_file()
    assert list(folder.glob("checkpoints/*.ckpt"))
    assert [path.name for path in Path().iterdir()] == [folder.parts[0]]


def test_several_loggers_by_name():
    run("fit", LOGGED, "--trainer.logger", "[CSVLogger, TensorBoardLogger]")
    assert list(Path().glob("lightning_logs/*/metrics.csv"))
    assert list(Path().glob("lightning_logs/*/events*"))


def test_a_folder_that_the_user_has_set_stays():
    run(
        "fit",
        LOGGED,
        "--trainer.logger",
        "CSVLogger",
        "--trainer.logger.save_dir",
        "own",
        "--trainer.default_root_dir",
        "r",
    )
    assert Path("own/lightning_logs/version_0/metrics.csv").is_file()


def test_the_config_is_saved_beside_the_checkpoints_of_a_logger_of_any_kind():
    run("fit", LOGGED, "--trainer.logger", f"{__name__}.Service")
    saved = yaml.safe_load(Path("kept/project/abc/config.yaml").read_text())
    assert saved["data"]["init_args"]["delay"] == 3
    assert list(Path("kept/project/abc/checkpoints").glob("*.ckpt"))
    assert "test loss" in run("test", "--run", "kept/project/abc")


@pytest.mark.parametrize(("root", "uri"), [(None, "sqlite:///./mlflow.db"), ("out", "sqlite:///out/mlflow.db")])
def test_mlflow_gets_a_database_in_the_same_folder_unless_it_is_told_a_place(root, uri):
    def placed(**given):
        options = {"save_dir": "./mlruns", "tracking_uri": None} | given
        logger = Namespace(class_path="MLFlowLogger", init_args=Namespace(**options))
        chosen = Namespace(logger=Namespace(class_path="MLFlowLogger", init_args=Namespace(**given)))
        place_loggers(Namespace(default_root_dir=root, logger=logger), chosen)
        return logger.init_args.tracking_uri

    assert placed() == uri
    assert placed(tracking_uri="http://server") == "http://server"
