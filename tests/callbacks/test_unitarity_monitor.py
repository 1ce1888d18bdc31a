import csv
import math
import re
import time

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
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
        logged = fit(model, ProjUNN())["weights/unitarity_error/layer.weight"]
        torch.testing.assert_close(logged, unitarity_error(model.layer.weight))
        assert logged < 1e-6

    def test_the_unitarity_error_of_weights_that_a_pattern_chooses(self):
        logged = fit(Given(torch.randn(8, 5), declare=False), ProjUNN("layer.weight"))
        assert logged["weights/unitarity_error/layer.weight"] < 1e-6

    def test_the_unitarity_error_in_a_run_without_the_method(self):
        assert fit(Given(torch.randn(8, 5)))["weights/unitarity_error/layer.weight"] > 1e-3

    def test_an_estimate_of_the_unitarity_error_of_large_weights(self):
        model = Given(torch.randn(600, 600) / 600)
        logged, exact = fit(model)["weights/unitarity_error/layer.weight"], unitarity_error(model.layer.weight)
        assert logged != exact
        assert logged == pytest.approx(exact.item(), rel=0.2)

    @pytest.mark.parametrize("rank", [1, 3])
    def test_the_energy_that_the_rank_keeps_and_the_stable_rank_of_an_update(self, rank):
        n = 12  # all directions of the update are alike
        flat = fit(Given(torch.linalg.qr(torch.randn(n, n)).Q), ProjUNN(rank=rank, sampler="lsi"))
        assert flat["weights/energy_kept/layer.weight"] == pytest.approx(rank / n, rel=1e-4)
        assert flat["weights/stable_rank/layer.weight"] == pytest.approx(n, rel=1e-3)
        thin = fit(Given(torch.outer(torch.randn(8), torch.randn(5))), ProjUNN(rank=rank, sampler="lsi"))
        assert thin["weights/energy_kept/layer.weight"] == pytest.approx(1, rel=1e-4)
        assert thin["weights/stable_rank/layer.weight"] == pytest.approx(1, rel=1e-3)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_no_draw_from_the_random_numbers_of_the_run(self, sampler):
        model = Given(torch.randn(8, 5))
        state = torch.get_rng_state()
        assert "weights/energy_kept/layer.weight" in fit(model, ProjUNN(sampler=sampler))
        assert torch.equal(torch.get_rng_state(), state)

    def test_the_stable_rank_of_several_small_weights_of_one_shape(self):
        class Two(Given):
            def __init__(self):
                super().__init__(torch.eye(6))
                self.other = orthogonal(nn.Linear(6, 6, bias=False))

            def training_step(self, batch, batch_idx):
                return self.layer.weight.trace() + self.other.weight.sum()

        logged = fit(Two(), ProjUNN())
        assert logged["weights/stable_rank/layer.weight"] == pytest.approx(6, rel=1e-3)
        assert logged["weights/stable_rank/other.weight"] == pytest.approx(1, rel=1e-3)

    def test_no_ratios_for_a_zero_update(self):
        logged = fit(Given(torch.zeros(4, 4)), ProjUNN())
        assert "weights/unitarity_error/layer.weight" in logged
        assert "weights/stable_rank/layer.weight" not in logged

    @pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, UnitaryRNN])
    def test_the_gradient_of_the_first_and_the_last_time_steps(self, layer):
        model = Recurrent(layer(3, 4, batch_first=True))
        logged = fit(model)
        for place, index in (("first", 0), ("last", -1)):
            torch.testing.assert_close(logged[f"weights/gradient_norm/rnn/{place}"], model.norms[index])

    def test_for_any_logger(self, tmp_path):
        fit(Given(torch.eye(4)), ProjUNN(), logger=CSVLogger(tmp_path))
        assert "weights/energy_kept/layer.weight" in next(tmp_path.rglob("metrics.csv")).read_text()


class TestPictures:
    def board(self, folder, model, *callbacks, **options):
        fit(model, *callbacks, logger=TensorBoardLogger(folder), **options)
        board = EventAccumulator(str(next(folder.rglob("events*"))), size_guidance={"images": 0, "histograms": 0})
        return board.Reload()

    def test_eigenvalues_and_the_histogram_of_their_phases(self, tmp_path):
        board = self.board(tmp_path, Given(torch.randn(6, 6)), ProjUNN())
        assert "weights/eigenvalues/layer.weight" in board.Tags()["images"]
        phases = board.Histograms("weights/phases/layer.weight")[0].histogram_value
        assert phases.num == 6
        assert -math.pi - 1e-6 < phases.min < phases.max < math.pi + 1e-6

    def test_eigenvalues_of_the_square_matrices_of_a_stacked_weight(self, tmp_path):
        method = ProjUNN("layer.weight", chunks=[6, 2, 2])
        board = self.board(tmp_path, Given(torch.randn(10, 6), declare=False), method)
        assert board.Tags()["images"] == ["weights/eigenvalues/layer.weight[0:6]"]

    def test_no_eigenvalues_of_rectangular_or_large_matrices(self, tmp_path):
        for shape in ((6, 4), (520, 520)):
            board = self.board(tmp_path / str(shape), Given(torch.randn(shape) / 100), ProjUNN())
            assert not board.Tags()["images"]

    def test_the_gradient_against_the_time_step(self, tmp_path):
        assert (
            "weights/gradient_over_time/rnn"
            in self.board(tmp_path, Recurrent(nn.GRU(3, 4, batch_first=True))).Tags()["images"]
        )

    def test_at_the_start_on_the_way_and_at_the_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr("projunn_lightning.callbacks.unitarity_monitor.SHARE", 1e9)
        board = self.board(tmp_path, Given(torch.randn(6, 6)), ProjUNN(), steps=9, log_every_n_steps=4)
        assert [image.step for image in board.Images("weights/eigenvalues/layer.weight")] == [0, 3, 7, 9]

    def test_of_the_gradient_at_the_last_measurement_if_the_run_ends_soon_after_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr("projunn_lightning.callbacks.unitarity_monitor.SHARE", 0.0)
        board = self.board(tmp_path, Recurrent(nn.GRU(3, 4, batch_first=True)), steps=3, log_every_n_steps=2)
        assert [image.step for image in board.Images("weights/gradient_over_time/rnn")] == [1]

    def test_in_files_of_the_log_folder_if_no_logger_shows_pictures(self, tmp_path):
        fit(Given(torch.randn(6, 6)), ProjUNN(), logger=CSVLogger(tmp_path, version="run"))
        folder = tmp_path / "lightning_logs" / "run" / "pictures" / "weights" / "eigenvalues" / "layer.weight"
        assert sorted(path.name for path in folder.iterdir()) == ["step=0000000.png", "step=0000002.png"]

    def test_none_without_a_log_folder(self, tmp_path):
        fit(Given(torch.randn(6, 6)), ProjUNN(), default_root_dir=tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("kind", [WandbLogger, MLFlowLogger])
    def test_for_weights_and_biases_and_mlflow(self, tmp_path, kind):
        calls = []

        class Stub(kind):
            """The logger without its package, which needs a server or a database."""

            def __init__(self):
                super(kind, self).__init__()

            name = version = run_id = "run"
            save_dir = str(tmp_path)
            log_metrics = log_hyperparams = finalize = after_save_checkpoint = lambda self, *args, **options: None
            experiment = property(lambda self: self)

            def log_image(self, *args, **options):
                calls.append((args, options))

        fit(Given(torch.randn(10, 6), declare=False), ProjUNN("layer.weight", chunks=[6, 4]), logger=Stub())
        assert [options["step"] for _, options in calls] == [0, 2]
        args, options = calls[0]
        image = options["images"][0] if kind is WandbLogger else args[1]
        name = "weights/eigenvalues/layer.weight[0:6]"
        assert options["key"] == (name if kind is WandbLogger else re.sub(r"[][:]", "_", name))
        assert image.shape == (400, 400, 3)
        assert not list(tmp_path.rglob("*.png"))


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

    @pytest.mark.parametrize("end", ["an exception", "the end of a run whose last epoch was skipped"])
    def test_leaves_no_hooks_after(self, end):
        class Ends(Recurrent):
            def on_train_batch_start(self, batch, batch_idx):
                return -1 if end != "an exception" else None

            def training_step(self, batch, batch_idx):
                raise KeyError

        model, method = Ends(nn.RNN(3, 4, batch_first=True)), ProjUNN()
        try:
            fit(model, method, steps=1, max_epochs=1)
        except KeyError:
            assert end == "an exception"
        assert not model.rnn._forward_pre_hooks
        assert method.projector.on_update is None


class TestBelongsToItsStep:
    """Each value is logged once, at the step at which it was taken."""

    def logged(self, folder, name, **options):
        """The steps at which a number was logged."""

        class Both(Recurrent):
            def training_step(self, batch, batch_idx):
                return super().training_step(batch, batch_idx) + self.layer.weight[0, 1]

        options = {"log_every_n_steps": 1, "logger": CSVLogger(folder), **options}
        fit(Both(nn.RNN(3, 4, batch_first=True)), ProjUNN(), **options)
        with next(folder.rglob("metrics.csv")).open() as file:
            return [int(row["step"]) for row in csv.DictReader(file) if row.get(name)]

    NAMES = (
        "weights/unitarity_error/layer.weight",
        "weights/energy_kept/layer.weight",
        "weights/gradient_norm/rnn/first",
    )

    @pytest.mark.parametrize("name", NAMES)
    def test_a_measurement_that_is_not_repeated_for_a_while(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr("projunn_lightning.callbacks.unitarity_monitor.SHARE", 0.0)
        assert self.logged(tmp_path, name, steps=8) == [0]

    @pytest.mark.filterwarnings("ignore:The number of training batches")
    @pytest.mark.parametrize("name", NAMES)
    def test_in_every_epoch(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr("projunn_lightning.callbacks.unitarity_monitor.SHARE", 1e9)
        assert self.logged(tmp_path, name, steps=6, limit_train_batches=2, log_every_n_steps=3) == [2, 5]

    @pytest.mark.parametrize("name", NAMES)
    def test_once_for_the_batches_whose_gradients_are_accumulated(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr("projunn_lightning.callbacks.unitarity_monitor.SHARE", 1e9)
        assert self.logged(tmp_path, name, steps=3, accumulate_grad_batches=2) == [0, 1, 2]

    def test_the_pictures_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("projunn_lightning.callbacks.unitarity_monitor.SHARE", 1e9)

        class TwoSteps(Given):
            def __init__(self):
                super().__init__(torch.eye(4))
                self.automatic_optimization = False

            def training_step(self, batch, batch_idx):
                for _ in range(2):
                    super().training_step(batch, batch_idx).backward()
                    self.optimizers().step()

        fit(TwoSteps(), ProjUNN(), steps=8, logger=TensorBoardLogger(tmp_path), log_every_n_steps=3)
        board = EventAccumulator(str(next(tmp_path.rglob("events*")))).Reload()
        drawn = [picture.step for picture in board.Images("weights/eigenvalues/layer.weight")]
        assert drawn == [0, 2, 4]  # the start, the measurement, the end
        assert board.Scalars("weights/energy_kept/layer.weight")[0].step == 2


class TestNeverStopsTheRun:
    @pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e30], ids=str)
    def test_by_the_pictures_of_a_weight_that_is_not_unitary(self, tmp_path, value):
        model = Recurrent(nn.RNN(3, 4, batch_first=True))
        nn.init.constant_(model.layer.weight, value)
        nn.init.constant_(model.rnn.weight_hh_l0, value)
        assert "weights/unitarity_error/layer.weight" in fit(model, logger=TensorBoardLogger(tmp_path))

    def test_by_a_gradient_of_zero(self, tmp_path):
        class Zero(Recurrent):
            def training_step(self, batch, batch_idx):
                return 0 * super().training_step(batch, batch_idx)

        logged = fit(Zero(nn.RNN(3, 4, batch_first=True)), ProjUNN(), logger=TensorBoardLogger(tmp_path))
        assert logged["weights/gradient_norm/rnn/first"] == 0

    def test_by_weights_in_half_precision(self, tmp_path):
        model = Given(torch.eye(4)).bfloat16()
        assert "weights/unitarity_error/layer.weight" in fit(model, logger=TensorBoardLogger(tmp_path))

    @pytest.mark.parametrize(
        ("of", "what"),
        [
            ("projunn_lightning.callbacks.unitarity_monitor.unitarity_errors", "numbers"),
            ("projunn_lightning.functional.Update.energy", "numbers"),
            ("torch.linalg.eigvals", "pictures"),
            ("projunn_lightning.callbacks.unitarity_monitor.draw_once", "pictures"),
            ("projunn_lightning.callbacks._input_gradients._is_sequence", "the gradient at the input of rnn"),
        ],
    )
    def test_but_it_warns_of_an_error_of_a_measurement(self, tmp_path, monkeypatch, of, what):
        def fails(*_, **__):
            raise KeyError("broken")

        monkeypatch.setattr(of, fails)
        model = Recurrent(nn.RNN(3, 4, batch_first=True))
        with pytest.warns(UserWarning, match=f"UnitarityMonitor could not measure {what}, and the training goes on"):
            fit(model, ProjUNN(), steps=1, logger=TensorBoardLogger(tmp_path))
