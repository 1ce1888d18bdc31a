import copy
import itertools
import re

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning import ConfigError, ConstraintError, ProjUNN, orthogonal
from projunn_lightning._compat import step_pre_hooks
from projunn_lightning.functional import unitarity_error


class PlainRNN(LightningModule):
    """A module of a user that does not use this library."""

    def __init__(self, optimizer=torch.optim.RMSprop, **options):
        super().__init__()
        self.rnn = nn.RNN(2, 8, batch_first=True)
        self.head = nn.Linear(8, 1)
        self.optimizer = lambda: optimizer(self.parameters(), **{"lr": 1e-2, **options})

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y)
        self.log("loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.mse_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return self.optimizer()


def loader(batches=7, size=4):
    x = torch.randn(batches * size, 5, 2)
    return DataLoader(TensorDataset(x, x.sum((1, 2))[:, None]), size)


def trainer(callback, **options):
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=callback, **{**defaults, **options})


def callback(**options):
    return ProjUNN("rnn.weight_hh_l*", **options)


def error(model):
    return unitarity_error(model.rnn.weight_hh_l0)


class Steps(ProjUNN):
    """Counts projections."""

    def count(self):
        return self.projector.state_dict()["rnn.weight_hh_l0"]["step"]


def test_keeps_a_weight_of_a_plain_module_orthogonal():
    model = PlainRNN()
    keys = list(model.state_dict())
    before = model.rnn.weight_hh_l0.clone()
    trainer(callback(), max_epochs=5).fit(model, loader())
    assert error(model) < 1e-6
    assert (model.rnn.weight_hh_l0 - before).abs().max() > 0.05
    assert list(model.state_dict()) == keys
    assert type(model.rnn.weight_hh_l0) is nn.Parameter


def test_makes_one_projection_in_each_optimizer_step_when_accumulation_does_not_divide_the_batches():
    model, method = PlainRNN(), Steps("rnn.weight_hh_l*")
    run = trainer(method, accumulate_grad_batches=3, max_epochs=2)
    run.fit(model, loader(batches=7))
    assert run.global_step == 6  # 7 batches in steps of 3, 3 and 1, twice
    assert method.count() == 6
    assert error(model) < 1e-6


def test_under_manual_optimization_with_two_optimizers():
    class Manual(PlainRNN):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for i, optimizer in enumerate(self.optimizers()):
                if i == 1 and batch_idx % 2:
                    continue
                optimizer.zero_grad()
                self.manual_backward(nn.functional.mse_loss(self(batch[0]), batch[1]))
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.Adam(self.head.parameters(), lr=1e-2), torch.optim.Adam(self.rnn.parameters(), lr=1e-2)]

    model, method = Manual(), Steps(["rnn.weight_hh_l0", "head.weight"])
    trainer(method).fit(model, loader(batches=7))
    assert {name: state["step"] for name, state in method.state_dict().items()} == {
        "rnn.weight_hh_l0": 4,
        "head.weight": 7,
    }
    assert error(model) < 1e-6
    assert unitarity_error(model.head.weight) < 1e-6


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_with_gradient_clipping(algorithm):
    model = PlainRNN(torch.optim.SGD, lr=1.0)
    before = model.rnn.weight_hh_l0.clone()
    trainer(callback(), gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm).fit(model, loader())
    assert error(model) < 1e-6
    assert not torch.equal(model.rnn.weight_hh_l0, before)


def test_with_learning_rate_schedulers():
    class Scheduled(PlainRNN):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 3))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    after = []

    class Watch(ProjUNN):
        def on_train_batch_end(self, trainer, pl_module, *args):
            after.append(pl_module.rnn.weight_hh_l0.clone())

    trainer(Watch("rnn.weight_hh_l0")).fit(Scheduled(), loader())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(after)]
    assert moved == [True, True, False, False, False, False]  # a learning rate of 0 moves nothing


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_in_mixed_and_double_precision(precision):
    model = PlainRNN()
    data = loader()
    if precision == "64-true":
        data = DataLoader(TensorDataset(*(t.double() for t in data.dataset.tensors)), 4)
    trainer(callback(), precision=precision).fit(model, data)
    assert error(model) < (1e-14 if precision == "64-true" else 1e-6)


def test_logs_and_shows_what_it_does():
    method = callback()
    run = trainer(method, log_every_n_steps=2, max_epochs=1)
    run.fit(PlainRNN(), loader())
    assert run.callback_metrics["unitarity_error"] < 1e-6
    assert run.progress_bar_metrics["unitarity_error"] < 1e-6
    assert run.callback_metrics["weights/skipped_updates"] == 0
    assert run.callback_metrics["weights/reorthonormalisations"] == 0


class Attention(PlainRNN):
    """Has a fused projection to 8 queries, 4 keys and 4 values."""

    def __init__(self, **options):
        super().__init__(**options)
        self.qkv = nn.Linear(8, 16, bias=False)

    def forward(self, x):
        q, k, v = self.qkv(self.rnn(x)[0]).split([8, 4, 4], -1)
        return nn.functional.scaled_dot_product_attention(q[..., :4], k, v).sum((1, 2))[:, None] + q[:, -1, 4:5]


@pytest.mark.parametrize("chunks", [4, [8, 4, 4]], ids=str)
def test_takes_weights_apart_as_chunks_says(chunks):
    model = Attention()
    before = model.qkv.weight.clone()
    trainer(ProjUNN("qkv.weight", chunks=chunks), max_epochs=2).fit(model, loader())
    matrices = model.qkv.weight.split([4] * 4 if chunks == 4 else chunks)
    assert max(unitarity_error(matrix) for matrix in matrices) < 1e-6
    assert (model.qkv.weight - before).abs().max() > 0.01


class DeclaredRNN(Attention):
    def __init__(self):
        super().__init__()
        orthogonal(self.rnn, "weight_hh_l0")


def test_lists_what_is_constrained_at_the_start_of_fit(caplog):
    methods = [ProjUNN(rank=2), ProjUNN("qkv.weight", chunks=[8, 4, 4], seed=3)]
    with caplog.at_level("INFO", "lightning.pytorch"):
        trainer(methods).fit(DeclaredRNN(), loader())
    shown = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Projector of")]
    assert sorted(shown) == sorted(repr(method.projector) for method in methods)
    assert "rnn.weight_hh_l0  8 x 8  1 matrix of 8 x 8\nsettings: rank=2, " in "".join(shown)
    assert "qkv.weight  16 x 8  1 matrix of 8 x 8, 2 matrices of 4 x 8\nsettings: rank=8, " in "".join(shown)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_leaves_the_weight_and_is_counted(bad):
    seen = []

    class Broken(PlainRNN):
        def on_before_optimizer_step(self, optimizer):
            seen.append(self.rnn.weight_hh_l0.clone())
            if self.trainer.global_step == 3:
                self.rnn.weight_hh_l0.grad[0, 0] = bad

    run = trainer(callback(), log_every_n_steps=1)
    model = Broken(torch.optim.SGD)
    run.fit(model, loader())
    assert torch.equal(seen[3], seen[4])
    assert not torch.equal(seen[4], seen[5])
    assert run.callback_metrics["weights/skipped_updates"] == 1
    assert error(model) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": "rnn.weight_hx_l*"}, r"matches no parameter of PlainRNN.*rnn\.weight_hh_l0"),
        ({"parameters": "rnn.bias_hh_l0"}, r"rnn\.bias_hh_l0 has shape \(8,\)"),
        ({"parameters": "rnn.weight_ih_l0", "coordinates": "skew"}, r"square matrices, and rnn\.weight_ih_l0 is 8 x"),
        ({}, "PlainRNN has nothing to constrain"),
    ],
    ids=str,
)
def test_refuses_what_cannot_be_constrained_and_leaves_weights_and_files(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = PlainRNN()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConstraintError, match=message):
        trainer(ProjUNN(**options), enable_checkpointing=True).fit(model, loader())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be a whole number of 1"),
        ({"retraction": "qr"}, "unknown retraction 'qr'"),
        ({"sampler": "x"}, "unknown sampler"),
        ({"parameters": "rnn.*", "chunks": "x"}, "chunks must be the number of matrices"),
        ({"chunks": 3}, "chunks=3 is for the parameters that patterns choose, and there are no patterns"),
    ],
    ids=str,
)
def test_refuses_bad_settings_at_once(options, message):
    with pytest.raises(ConfigError, match=message):
        ProjUNN(**options)


def test_logs_at_the_steps_at_which_the_trainer_logs():
    """With epochs of 7 batches and an interval of 3, each logged value belongs to its own step."""
    logged, counted = [], []

    class Poisoned(PlainRNN):
        def on_before_optimizer_step(self, optimizer):
            self.rnn.weight_hh_l0.grad.fill_(float("nan"))

    class Recorder(Logger):
        name, version, experiment = "recorder", 0, None

        def log_hyperparams(self, *args): ...

        def log_metrics(self, metrics, step):
            if "weights/skipped_updates" in metrics:
                logged.append(metrics["weights/skipped_updates"])
                counted.append(step + 1)

    run = trainer(callback(), max_epochs=3, log_every_n_steps=3)
    run.loggers = [Recorder()]
    run.fit(Poisoned(torch.optim.SGD), loader(batches=7))
    assert logged == counted == [3, 6, 9, 12, 15, 18, 21]


@pytest.mark.parametrize("hook", ["setup", "configure_model"])
def test_takes_a_model_that_builds_its_layers_in_a_hook(hook):
    class Late(PlainRNN):
        def __init__(self):
            super().__init__()
            del self.rnn

        def build(self, *args, **kwargs):
            self.rnn = nn.RNN(2, 8, batch_first=True)

    setattr(Late, hook, Late.build)
    model = Late()
    trainer(callback()).fit(model, loader())
    assert error(model) < 1e-6


def test_constrains_a_frozen_weight_from_the_step_at_which_it_joins_the_optimizer():
    class Unfreeze(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.rnn)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.rnn, optimizer, lr=0.1)

    class HeadOnly(PlainRNN):
        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

    model, method = HeadOnly(), Steps("rnn.weight_hh_l*")
    trainer([method, Unfreeze()], max_epochs=3).fit(model, loader(batches=7))
    assert method.count() == 14
    assert error(model) < 1e-6


def test_resumes_from_a_checkpoint_of_another_sampler_and_rank(tmp_path):
    for sampler, rank, epochs in (("subspace", 4, 1), ("subspace", 2, 2), ("lsi", 1, 3), ("subspace", 1, 4)):
        model = PlainRNN()
        run = trainer(callback(sampler=sampler, rank=rank), max_epochs=epochs)
        run.fit(model, loader(), ckpt_path=tmp_path / "last.ckpt" if epochs > 1 else None)
        run.save_checkpoint(tmp_path / "last.ckpt")
        assert error(model) < 1e-6


def test_refuses_half_precision_weights_with_the_remedy():
    model = PlainRNN()
    before = model.rnn.weight_hh_l0.clone()
    with pytest.raises(ConstraintError, match=r"precision='bf16-true' keeps weights in half precision.*'bf16-mixed'"):
        trainer(callback(), precision="bf16-true").fit(model, loader())
    assert torch.equal(model.rnn.weight_hh_l0, before)


def test_refuses_a_constrained_parameter_that_no_optimizer_holds():
    class Partial(PlainRNN):
        def configure_optimizers(self):
            return torch.optim.SGD(self.head.parameters(), lr=0.1)

    model = Partial()
    before = model.rnn.weight_hh_l0.clone()
    with pytest.raises(ConstraintError, match=r"rnn\.weight_hh_l0 is held by no optimizer"):
        trainer(callback()).fit(model, loader())
    assert torch.equal(model.rnn.weight_hh_l0, before)


def test_leaves_no_hooks_behind_after_fit_or_an_exception():
    def step(model):
        optimizer = model.trainer.optimizers[0]
        model.rnn.weight_hh_l0.grad = torch.ones(8, 8)
        optimizer.step()

    model = PlainRNN(torch.optim.SGD)
    run = trainer(callback())
    run.fit(model, loader())
    step(model)
    assert error(model) > 1e-3

    class Failing(PlainRNN):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("of the user's own making")
            return super().training_step(batch, batch_idx)

    model, method = Failing(torch.optim.SGD), callback()
    with pytest.raises(RuntimeError, match="of the user's own making"):
        trainer(method).fit(model, loader())
    assert error(model) < 1e-6
    assert not any(step_pre_hooks(optimizer) for optimizer in model.trainer.optimizers)


def test_fit_again_and_test_after_fit():
    model, method = PlainRNN(), callback()
    run = trainer(method)
    run.fit(model, loader())
    weight = model.rnn.weight_hh_l0.clone()
    run.test(model, loader(), verbose=False)
    assert torch.equal(model.rnn.weight_hh_l0, weight)
    trainer(method).fit(model, loader())
    assert error(model) < 1e-6
    assert not torch.equal(model.rnn.weight_hh_l0, weight)


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("sampler", ["tangent", "lsi", "subspace"])
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_run(sampler, rank, tmp_path):
    def fit(epochs, ckpt=None):
        torch.manual_seed(0)
        model = PlainRNN(torch.optim.Adam)
        run = trainer(callback(sampler=sampler, rank=rank), max_epochs=epochs)
        run.fit(model, loader(), ckpt_path=ckpt)
        return run, model

    run, _ = fit(2)
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    _, resumed = fit(4, tmp_path / "last.ckpt")
    _, unbroken = fit(4)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), unbroken.parameters(), strict=True))


class TestTheProgressBar:
    """A unitarity error of 1e-7 can be read on it."""

    @pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
    def test_shows_the_digits_that_count(self, capsys, monkeypatch, bar):
        monkeypatch.setenv("COLUMNS", "200")
        callbacks = [ProjUNN("rnn.weight_hh_l0"), bar()]
        trainer(callbacks, max_epochs=1, enable_progress_bar=True).fit(PlainRNN(), loader())
        assert re.search(r"unitarity_error[:=] ?\d\.?\d*e-0?[78]", capsys.readouterr().out)

    def test_keeps_a_format_that_the_user_has_chosen(self):
        bar = RichProgressBar(theme=RichProgressBarTheme(metrics_format=".1e"))
        callbacks = [ProjUNN("rnn.weight_hh_l0"), bar]
        trainer(callbacks, max_epochs=1, enable_progress_bar=True).fit(PlainRNN(), loader())
        assert bar.theme.metrics_format == ".1e"
