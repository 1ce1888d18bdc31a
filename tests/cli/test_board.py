"""What TensorBoard shows of a run of the command."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.support.commands import changed, named, run

LOGGED = changed(trainer={"logger": True})


def board(folder="lightning_logs/version_0"):
    return EventAccumulator(folder, size_guidance={"images": 0}).Reload()


def hparams(board):
    """The options and the names of the metrics on the page HParams."""
    contents = {
        name: HParamsPluginData.FromString(data.plugin_data.content) for name, data in board.summary_metadata.items()
    }
    started = contents["_hparams_/session_start_info"].session_start_info.hparams
    options = {name: value.number_value or value.string_value for name, value in started.items()}
    return options, {metric.name.tag for metric in contents["_hparams_/experiment"].experiment.metric_infos}


@pytest.mark.parametrize("logger", [True, named("TensorBoardLogger", save_dir=".", name="lightning_logs")], ids=str)
def test_it_opens_on_the_groups_train_and_val_because_they_are_the_first_two(logger):
    run("fit", changed(trainer={"logger": logger}))
    tags = board().Tags()
    names = [*tags["scalars"], *tags["images"], *tags["histograms"]]
    assert sorted({name.split("/")[0] for name in names}) == ["train", "val", "weights", "z_test"]
    assert len(names) == len(set(names))
    assert "train/lr-RMSprop" in names


def test_hparams_has_the_method_the_optimizer_and_the_rate_that_ran_beside_validation_and_test():
    run("fit", LOGGED)
    options, metrics = hparams(board())
    assert options["optimizer"] == "RMSprop"
    assert options["optimizer.lr"] == 0.002
    assert options["projunn.rank"] == 1
    assert options["projunn.sampler"] == "tangent"
    assert options["hidden_size"] == 8
    assert not any("instantiator" in name or name == "learning_rate" for name in options)
    assert metrics == {"val/loss", "val/accuracy", "z_test/loss", "z_test/accuracy"}
    assert metrics <= set(board().Tags()["scalars"])
    assert "_instantiator" not in Path("lightning_logs/version_0/hparams.yaml").read_text()


def test_no_metric_is_logged_twice_for_hparams():
    run("fit", LOGGED)
    for name in ("val/loss", "z_test/loss"):
        assert len(board().Scalars(name)) == 1


def test_other_loggers_get_the_optimizer_and_the_method_too():
    run("fit", changed(trainer={"logger": named("CSVLogger", save_dir=".")}))
    saved = Path("lightning_logs/version_0/hparams.yaml").read_text()
    assert "optimizer.lr: 0.002" in saved
    assert "projunn.rank: 1" in saved
    assert "_instantiator" not in saved
