import math
import time

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from projunn_lightning import ProjUNN, UnitarityMonitor, orthogonal
from projunn_lightning.functional import SAMPLERS, unitarity_error
from projunn_lightning.nn import UnitaryRNN


class Given(LightningModule):
    """A weight whose gradient is a given matrix."""

    def __init__(self, gradient, declare=True):
        super().__init__()
        self.layer = nn.Linear(*gradient.shape[::-1], bias=False)
        self.gradient = gradient
        if declare:
            orthogonal(self.layer)

    def training_step(self, batch, batch_idx):
        return (self.layer.weight * self.gradient).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recurrent(Given):
    """Reads the last state of a recurrent layer; keeps the gradient norms of its last input."""

    def __init__(self, layer):
        super().__init__(torch.eye(2))
        self.rnn = layer

    def training_step(self, batch, batch_idx):
        x = torch.linspace(-1, 1, 60).view(2, 10, 3).requires_grad_()
        loss = self.rnn(x)[0][:, -1].square().sum()
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        self.norms = gradient.square().sum((0, 2)).sqrt()
        return self.rnn(x.detach())[0][:, -1].square().sum()


def fit(model, *callbacks, steps=2, **options):
    options = {"logger": False, "log_every_n_steps": steps, **options}
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[*callbacks, UnitarityMonitor()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, [0] * steps)
    return trainer.callback_metrics


class TestNumbers:
    def test_the_unitarity_error_of_each_declared_weight(self):
        model = Given(torch.randn(8, 5))
        logged = fit(model, ProjUNN())["unitarity_error/layer.weight"]
        torch.testing.assert_close(logged, unitarity_error(model.layer.weight))
        assert logged < 1e-6

    def test_the_unitarity_error_of_weights_that_a_pattern_chooses(self):
        logged = fit(Given(torch.randn(8, 5), declare=False), ProjUNN("layer.weight"))
        assert logged["unitarity_error/layer.weight"] < 1e-6

    def test_the_unitarity_error_in_a_run_without_the_method(self):
        assert fit(Given(torch.randn(8, 5)))["unitarity_error/layer.weight"] > 1e-3

    def test_an_estimate_of_the_unitarity_error_of_large_weights(self):
        model = Given(torch.randn(600, 600) / 600)
        logged, exact = fit(model)["unitarity_error/layer.weight"], unitarity_error(model.layer.weight)
        assert logged != exact
        assert logged == pytest.approx(exact.item(), rel=0.2)

    @pytest.mark.parametrize("rank", [1, 3])
    def test_the_energy_that_the_rank_keeps_and_the_stable_rank_of_an_update(self, rank):
        n = 12  # all directions of the update are alike
        flat = fit(Given(torch.linalg.qr(torch.randn(n, n)).Q), ProjUNN(rank=rank, sampler="lsi"))
        assert flat["energy_kept/layer.weight"] == pytest.approx(rank / n, rel=1e-4)
        assert flat["stable_rank/layer.weight"] == pytest.approx(n, rel=1e-3)
        thin = fit(Given(torch.outer(torch.randn(8), torch.randn(5))), ProjUNN(rank=rank, sampler="lsi"))
        assert thin["energy_kept/layer.weight"] == pytest.approx(1, rel=1e-4)
        assert thin["stable_rank/layer.weight"] == pytest.approx(1, rel=1e-3)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_no_draw_from_the_random_numbers_of_the_run(self, sampler):
        model = Given(torch.randn(8, 5))
        state = torch.get_rng_state()
        assert "energy_kept/layer.weight" in fit(model, ProjUNN(sampler=sampler))
        assert torch.equal(torch.get_rng_state(), state)

    def test_the_stable_rank_of_several_small_weights_of_one_shape(self):
        class Two(Given):
            def __init__(self):
                super().__init__(torch.eye(6))
                self.other = orthogonal(nn.Linear(6, 6, bias=False))

            def training_step(self, batch, batch_idx):
                return self.layer.weight.trace() + self.other.weight.sum()

        logged = fit(Two(), ProjUNN())
        assert logged["stable_rank/layer.weight"] == pytest.approx(6, rel=1e-3)
        assert logged["stable_rank/other.weight"] == pytest.approx(1, rel=1e-3)

    def test_no_ratios_for_a_zero_update(self):
        logged = fit(Given(torch.zeros(4, 4)), ProjUNN())
        assert "unitarity_error/layer.weight" in logged
        assert "stable_rank/layer.weight" not in logged

    @pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, UnitaryRNN])
    def test_the_gradient_of_the_first_and_the_last_time_steps(self, layer):
        model = Recurrent(layer(3, 4, batch_first=True))
        logged = fit(model)
        for place, index in (("first", 0), ("last", -1)):
            torch.testing.assert_close(logged[f"gradient_norm/rnn/{place}"], model.norms[index])

    def test_for_any_logger(self, tmp_path):
        fit(Given(torch.eye(4)), ProjUNN(), logger=CSVLogger(tmp_path))
        assert "energy_kept/layer.weight" in next(tmp_path.rglob("metrics.csv")).read_text()


class TestPictures:
    def board(self, folder, model, *callbacks, **options):
        fit(model, *callbacks, logger=TensorBoardLogger(folder), **options)
        board = EventAccumulator(str(next(folder.rglob("events*"))), size_guidance={"images": 0, "histograms": 0})
        return board.Reload()

    def test_eigenvalues_and_the_histogram_of_their_phases(self, tmp_path):
        board = self.board(tmp_path, Given(torch.randn(6, 6)), ProjUNN())
        assert "eigenvalues/layer.weight" in board.Tags()["images"]
        phases = board.Histograms("phases/layer.weight")[0].histogram_value
        assert phases.num == 6
        assert -math.pi - 1e-6 < phases.min < phases.max < math.pi + 1e-6

    def test_eigenvalues_of_the_square_matrices_of_a_stacked_weight(self, tmp_path):
        method = ProjUNN("layer.weight", chunks=[6, 2, 2])
        board = self.board(tmp_path, Given(torch.randn(10, 6), declare=False), method)
        assert board.Tags()["images"] == ["eigenvalues/layer.weight[0:6]"]

    def test_no_eigenvalues_of_rectangular_or_large_matrices(self, tmp_path):
        for shape in ((6, 4), (520, 520)):
            board = self.board(tmp_path / str(shape), Given(torch.randn(shape) / 100), ProjUNN())
            assert not board.Tags()["images"]

    def test_the_gradient_against_the_time_step(self, tmp_path):
        assert "gradient_norm/rnn" in self.board(tmp_path, Recurrent(nn.GRU(3, 4, batch_first=True))).Tags()["images"]


class TestCost:
    def test_the_next_measurement_waits_if_one_has_taken_long(self, monkeypatch):
        looks = []

        def slowly(monitor, *_):
            looks.append(time.sleep(0.05))
            return {}

        monkeypatch.setattr(UnitarityMonitor, "_numbers", slowly)
        fit(Given(torch.eye(4)), ProjUNN(), steps=30, log_every_n_steps=1)
        assert len(looks) == 1

    def test_leaves_no_hooks(self):
        model, method = Recurrent(nn.RNN(3, 4, batch_first=True)), ProjUNN()
        fit(model, method)
        assert not model.rnn._forward_pre_hooks
        assert method.projector.on_update is None
