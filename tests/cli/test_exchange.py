"""The recurrent layer of a config is exchanged by an option, or by a later config."""

import warnings

import pytest
import yaml

from projunn_lightning.nn import RNNS
from tests.support.commands import named, refused, run

SMALL = ["--data.delay", 3, "--data.train_size", 4, "--data.val_size", 2, "--data.test_size", 2, "--data.batch_size", 2]
SMALL += ["--model.hidden_size", 8, "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", 1]
RNN = ["--model.rnn", "rnn"]
SIZES = {"input_size": 10, "output_size": 9}
pytestmark = pytest.mark.filterwarnings("ignore:no parameter is declared orthogonal:UserWarning")


def warned(*args):
    """The warnings of a run about options that are left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "test loss" in run("fit", *args, *SMALL)
    return {str(each.message) for each in caught if "is left out" in str(each.message)}


@pytest.mark.parametrize("rnn", RNNS)
def test_every_layer_runs_in_the_place_of_another(rnn):
    dtype = ["--model.complex", "true"] if rnn == "urnn" else []
    warned("--config", "copying", "--model.rnn", rnn, *dtype)


@pytest.mark.parametrize(
    "way",
    [["--model.rnn", "lstm"], ["--model.init_args.rnn=lstm"], ["--config", "{model: {init_args: {rnn: lstm}}}"]],
    ids=str,
)
def test_an_option_that_the_new_layer_does_not_have_is_left_out_with_a_warning(way):
    assert warned("--config", "copying", *way) == {
        "model.nonlinearity is left out, found 'modrelu': the recurrent layer 'lstm' does not accept it",
        "model.init is left out, found 'henaff': the recurrent layer 'lstm' does not accept it",
    }


def test_options_of_the_former_layer_are_left_out_with_a_warning():
    model = named("SequenceModel", **SIZES, rnn="ornn", rnn_options={"reflections": 2})
    assert warned({"model": model, "data": named("CopyingMemory")}, "--model.rnn", "gru") == {
        "model.rnn_options.reflections is left out, found 2: the recurrent layer 'gru' does not accept it"
    }


@pytest.mark.filterwarnings("ignore:model.init is left out, found 'henaff'")
def test_a_nonlinearity_that_the_new_layer_does_not_have_is_left_out_with_a_warning():
    message = "model.nonlinearity is left out, found 'modrelu': the recurrent layer 'rnn' does not accept it"
    assert message in warned("--config", "compare/copying_200/task", "--config", "compare/copying_200/projunn", *RNN)
    model = named("SequenceModel", **SIZES, rnn="rnn", nonlinearity="modrelu")
    refusal = refused("fit", "--config", yaml.safe_dump({"model": model}), "--data", "CopyingMemory")
    assert "Unknown nonlinearity 'modrelu'" in refusal


@pytest.mark.filterwarnings("ignore:model.init is left out, found 'henaff'")
def test_an_option_that_is_set_where_the_layer_is_chosen_is_refused():
    message = "the recurrent layer 'lstm' has no option 'nonlinearity'"
    model = named("SequenceModel", **SIZES, rnn="lstm", nonlinearity="relu")
    assert message in refused("fit", "--config", yaml.safe_dump({"model": model}), "--data", "CopyingMemory")
    options = ["--model.nonlinearity", "relu", "--model.rnn", "lstm"]
    assert message in refused("fit", "--config", "copying", *options)
