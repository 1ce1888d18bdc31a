from typing import get_args

import pytest
import torch
from lightning.pytorch import Trainer

from projunn_lightning import AddingProblem, CopyingMemory, ProjUNN, SequenceModel
from projunn_lightning.functional import unitarity_error
from projunn_lightning.nn.rnns import Cell


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


def test_integers_are_taken_one_hot():
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


def test_accuracy_leaves_out_the_ignored_class_and_the_loss_does_not():
    model = SequenceModel(10, 9, 4, ignore_index=8)
    model.readout.weight.data.zero_()
    model.readout.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0, 5.0]))  # always answers blank
    data = CopyingMemory(delay=10, batch_size=20, test_size=100)
    (result,) = trainer().test(model, datamodule=data, verbose=False)
    assert result["test/accuracy"] == 0.0
    predictions = trainer().predict(model, datamodule=data)
    assert torch.equal(torch.cat(predictions), torch.full((100, 30), 8))


def test_test_metrics_are_those_of_the_whole_set():
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
        ({"task": "Regression"}, "unknown task 'Regression', expected classification or regression"),
        ({"output": "middle"}, "unknown output 'middle', expected sequence or last"),
        ({"output_size": 1}, "output_size must be 2 or more for classification, found 1"),
        ({"output_size": 0, "task": "regression"}, "output_size must be 1 or more for regression, found 0"),
    ],
    ids=str,
)
def test_refuses_choices_it_does_not_know(options, message):
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
    """Real training: two symbols over five blanks, from the baseline to nearly zero."""
    model = SequenceModel(6, 5, 24, ignore_index=4, complex=complex, learning_rate=3e-3)
    data = CopyingMemory(5, 2, 4, batch_size=32, train_size=32 * 400, val_size=32, test_size=256)
    run = trainer(ProjUNN(lr_divider=4), max_epochs=1, limit_val_batches=0)
    run.fit(model, datamodule=data)
    (result,) = run.test(model, datamodule=data, verbose=False)
    assert result["test/loss"] < 0.2 * data.baseline_loss
    assert result["test/accuracy"] > 0.95
    assert unitarity_error(model.rnn.weight_hh_l0) < 1e-5


class TestCells:
    @pytest.mark.parametrize("cell", get_args(Cell))
    def test_every_cell_trains_on_a_task(self, cell):
        model = SequenceModel(6, 5, 16, cell=cell, complex=cell == "urnn", ignore_index=4, learning_rate=3e-3)
        data = CopyingMemory(2, 2, 4, batch_size=32, train_size=1600, val_size=64, test_size=256)
        callbacks = [ProjUNN(lr_divider=8)] if cell == "projunn" else []
        fit = trainer(*callbacks, max_epochs=2)
        fit.fit(model, datamodule=data)
        (result,) = fit.test(model, datamodule=data, verbose=False)
        assert result["test/loss"] < 1.1 * data.baseline_loss
        assert SequenceModel(**model.hparams).hparams == model.hparams

    def test_options_reach_the_cell(self):
        model = SequenceModel(3, 2, 8, cell="ornn", capacity=3, nonlinearity="relu")
        assert model.rnn.nonlinearity == "relu"
        assert model.rnn.maps[0].shape == (8, 3)
