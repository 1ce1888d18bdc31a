import inspect
import re

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_summary import ModelSummary

from projunn_lightning import AddingProblem, CopyingMemory, ProjUNN, SequenceModel
from projunn_lightning.constraint import declared
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn import RNNS


def trainer(*callbacks, **options):
    return Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize(
    ("task", "output", "expected"),
    [
        ("classification", "sequence", (2, 7, 4)),
        ("classification", "last", (2, 4)),
        ("regression", "sequence", (2, 7, 4)),
        ("regression", "last", (2, 4)),
    ],
)
def test_outputs_and_losses_of_every_kind_of_task(task, output, expected, complex):
    model = SequenceModel(3, 4, 6, task=task, output=output, complex=complex)
    out = model(torch.randn(2, 7, 3))
    assert out.shape == expected
    assert not out.is_complex()
    target = torch.randint(4, expected[:-1]) if task == "classification" else torch.randn(expected)
    loss = model.loss(out, target)
    assert loss.ndim == 0
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("rnn", ["projunn", "lstm"])
def test_a_bidirectional_model_reads_each_direction_at_the_end_of_its_run(rnn):
    model = SequenceModel(3, 4, 6, output="last", rnn=rnn, rnn_options={"bidirectional": True})
    input = torch.randn(2, 7, 3)
    _, final = model.rnn(input)
    last = torch.cat([*(final[0] if rnn == "lstm" else final)], -1)
    torch.testing.assert_close(model(input), model.readout(last))
    steps = SequenceModel(3, 4, 6, complex=rnn == "projunn", rnn=rnn, rnn_options={"bidirectional": True})
    assert steps(input).shape == (2, 7, 4)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize("complex", [False, True])
def test_has_the_default_dtype(complex):
    model = SequenceModel(3, 4, 6, complex=complex)
    assert model(torch.randn(2, 7, 3)).dtype == torch.float64
    assert model.rnn.weight_hh_l0.dtype == (torch.complex128 if complex else torch.float64)


def test_the_summary_of_lightning_counts_the_floating_point_operations_of_the_recurrence():
    model = SequenceModel(3, 4, 6)
    model.example_input_array = torch.randn(2, 7, 3)
    counts = ModelSummary(model).flop_counts
    assert sum(counts["rnn"].values()) == 2 * 2 * 7 * 6 * (3 + 6)


def test_integers_are_encoded_one_hot():
    model = SequenceModel(5, 2, 6)
    symbols = torch.randint(5, (2, 7))
    torch.testing.assert_close(model(symbols.to(torch.uint8)), model(symbols))
    torch.testing.assert_close(model(symbols), model(torch.nn.functional.one_hot(symbols, 5).float()))


@pytest.mark.parametrize(
    ("options", "input", "target", "message"),
    [
        ({}, torch.full((2, 5), 3), torch.zeros(2, 5).long(), r"no integer from 0 to input_size - 1 = 2"),
        ({}, torch.zeros(2, 5, 4), torch.zeros(2, 5).long(), r"I = 3 features, found \(2, 5, 4\)"),
        ({}, torch.zeros(2, 5, 3), torch.full((2, 5), 2), r"no class below output_size = 2: Target 2"),
        ({"output": "last"}, torch.zeros(2, 5, 3), torch.zeros(2, 5).long(), r"shape \(2,\) for output='last'"),
        ({"task": "regression"}, torch.zeros(2, 5, 3), torch.zeros(2, 5, 1), r"shape \(2, 5, 2\).*found \(2, 5, 1\)"),
    ],
    ids=["symbol", "features", "class", "last", "regression"],
)
def test_refuses_data_that_does_not_fit(options, input, target, message):
    model = SequenceModel(3, 2, 4, **options)
    with pytest.raises(ValueError, match=message):
        model.loss(model(input), target)


def test_the_accuracy_leaves_out_the_ignored_class_and_the_loss_does_not():
    model = SequenceModel(10, 9, 4, ignore_index=8)
    model.readout.weight.data.zero_()
    model.readout.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0, 5.0]))  # the model always answers blank
    data = CopyingMemory(delay=10, batch_size=20, test_size=100)
    (result,) = trainer().test(model, datamodule=data, verbose=False)
    assert result["test/accuracy"] == 0.0
    predictions = trainer().predict(model, datamodule=data)
    assert torch.equal(torch.cat(predictions), torch.full((100, 30), 8))


def test_test_metrics_are_means_over_the_whole_set():
    model = SequenceModel(2, 1, 4, task="regression", output="last")
    data = AddingProblem(length=10, batch_size=7, test_size=50)
    (result,) = trainer().test(model, datamodule=data, verbose=False)
    x, y = data.dataset("test").__getitems__(range(50))
    with torch.no_grad():
        difference = model.eval()(x) - y
    assert result["test/loss"] == pytest.approx(difference.square().mean().item(), rel=1e-5)
    assert result["test/mae"] == pytest.approx(difference.abs().mean().item(), rel=1e-5)


def test_hyper_parameters_are_saved_and_loaded_with_weights_only(tmp_path):
    model = SequenceModel(2, 1, 4, task="regression", output="last", init="identity")
    run = trainer(ProjUNN(), max_steps=2, limit_val_batches=0)
    run.fit(model, datamodule=AddingProblem(length=10, batch_size=5, train_size=20))
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = SequenceModel.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.hparams == model.hparams
    x = torch.randn(2, 10, 2)
    torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "Regression"}, "unknown task 'Regression', expected one of classification, regression"),
        ({"output": "middle"}, "unknown output 'middle', expected one of sequence, last"),
        ({"output_size": 1}, "output_size must be 2 or more, found 1"),
        ({"output_size": 0, "task": "regression"}, "output_size must be 1 or more, found 0"),
    ],
    ids=str,
)
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceModel(**{"input_size": 3, "output_size": 2, **options})


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_trains_in_mixed_and_double_precision(precision, complex):
    model = SequenceModel(6, 5, 8, complex=complex)
    data = CopyingMemory(5, 2, 4, batch_size=8, train_size=80, val_size=8, test_size=8)
    trainer(ProjUNN(), max_epochs=1, precision=precision).fit(model, datamodule=data)
    error = unitarity_error(model.rnn.weight_hh_l0)
    assert error < (1e-14 if precision == "64-true" else 1e-6)


@pytest.mark.parametrize("complex", [False, True])
def test_learns_to_copy(complex):
    """The model trains to recall two symbols over five blanks, from the loss of the baseline to nearly zero."""
    model = SequenceModel(6, 5, 24, ignore_index=4, complex=complex, learning_rate=3e-3)
    data = CopyingMemory(5, 2, 4, batch_size=32, train_size=32 * 400, val_size=32, test_size=256)
    run = trainer(ProjUNN(lr_divider=4), max_epochs=1, limit_val_batches=0)
    run.fit(model, datamodule=data)
    (result,) = run.test(model, datamodule=data, verbose=False)
    assert result["test/loss"] < 0.2 * data.baseline_loss
    assert result["test/accuracy"] > 0.95
    assert unitarity_error(model.rnn.weight_hh_l0) < 1e-5


class TestRecurrentLayers:
    @pytest.mark.parametrize("rnn", RNNS)
    def test_every_layer_trains_on_a_task(self, rnn):
        complex = torch.float32 not in RNNS[rnn].dtypes
        model = SequenceModel(6, 5, 16, rnn=rnn, complex=complex, ignore_index=4, learning_rate=3e-3)
        data = CopyingMemory(2, 2, 4, batch_size=32, train_size=1600, val_size=64, test_size=256)
        callbacks = [ProjUNN(lr_divider=8)] if declared(model) else []
        fit = trainer(*callbacks, max_epochs=2)
        fit.fit(model, datamodule=data)
        (result,) = fit.test(model, datamodule=data, verbose=False)
        assert result["test/loss"] < 1.1 * data.baseline_loss
        assert SequenceModel(**model.hparams).hparams == model.hparams

    def test_options_reach_the_layer(self):
        model = SequenceModel(3, 2, 8, rnn="ornn", rnn_options={"reflections": 3}, nonlinearity="relu")
        assert model.rnn.nonlinearity == "relu"
        assert model.rnn.maps[0].shape == (8, 3)
        assert not SequenceModel(3, 2, 8, rnn_options={"bias": False}, nonlinearity="relu").rnn.bias
        assert SequenceModel(3, 2, 8, init="identity").rnn.weight_hh_l0.equal(torch.eye(8))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rnn": "ornn", "rnn_options": {"capacity": 3}}, "'ornn' has no option 'capacity'; its options are refl"),
            ({"rnn": "gru", "init": "identity"}, "'gru' has no option 'init'; its options are bias, batch_first"),
            ({"rnn": "gru", "complex": True}, "'gru' cannot have the dtype torch.complex64"),
            ({"rnn": "urnn"}, "'urnn' cannot have the dtype torch.float32, .*; the option complex of SequenceModel"),
            (
                {"rnn_options": {"init": "haar", "dropout": 0}},
                "own, found dropout, init: SequenceModel sets these itself",
            ),
            ({"rnn_options": {"batch_first": False}}, "own, found batch_first: SequenceModel sets these itself"),
        ],
        ids=str,
    )
    def test_options_that_the_layer_does_not_have_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            SequenceModel(3, 2, 8, **options)


class TestCommandLine:
    @pytest.fixture
    def parser(self):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(SequenceModel, "model")
        return parser

    def test_the_help_describes_every_option_and_shows_its_choices(self, parser):
        words = " ".join(parser.format_help().partition("options:")[2].split())
        for name in inspect.signature(SequenceModel).parameters:
            assert re.search(rf"--model\.{name} \S+ [^-(\[]", words), name  # a description follows the value
        assert f"--model.rnn {{{','.join(RNNS)}}}" in words
        assert "Optional[Literal['modrelu', 'relu', 'tanh', 'identity']]" in words
        assert "'haar', 'haar_so', 'identity', 'henaff', 'cayley']" in words

    def test_it_sets_the_options_of_a_layers_own(self, parser):
        words = ["--model.input_size=3", "--model.output_size=2", "--model.rnn=eunn", "--model.rnn_options.capacity=3"]
        model = parser.instantiate_classes(parser.parse_args(words)).model
        assert len(model.rnn.maps[0].partners) == 3
