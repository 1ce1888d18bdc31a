"""The method together with other features of Lightning and torch: each works, or is refused with its name."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    ModelSummary,
    RichModelSummary,
    StochasticWeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from projunn_lightning import ConstraintError, ProjUNN, orthogonal
from tests.support.fits import Net, Validated, error, loader, steps, trainer

PATTERNS = ["first.weight", "second.weight"]


def fits(model, *callbacks, **options):
    """The method after a fit that moved the constrained weights and left them unitary."""
    method = next((each for each in callbacks if isinstance(each, ProjUNN)), ProjUNN(PATTERNS))
    before = {name: model.get_parameter(name).detach().clone() for name in PATTERNS}
    run = trainer(*callbacks, *([] if method in callbacks else [method]), **options)
    run.fit(model, loader(), loader(2) if isinstance(model, Validated) else None)
    for name in PATTERNS:
        assert error(model.get_parameter(name)) < 1e-6
        assert (model.get_parameter(name) - before[name]).abs().max() > 1e-3
    assert not run.optimizers[0]._optimizer_step_post_hooks
    return method


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


class Sized(Net):
    """Makes its own batches, for the finders."""

    batch_size = 4

    def train_dataloader(self):
        return loader(batches=24 // self.batch_size, size=self.batch_size)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_several_runs_of_two_trainers_with_validation_and_test_between():
    model, method = Validated(), ProjUNN(PATTERNS)
    run, last = trainer(method), model.first.weight.detach().clone()
    for again in (run, run, trainer(method)):
        again.fit_loop.max_epochs = again.current_epoch + 1
        again.fit(model, loader(), loader(2))
        assert steps(method) == dict.fromkeys(PATTERNS, 6)
        assert error(model.first.weight) < 1e-6
        assert not torch.equal(model.first.weight, last)
        last = model.first.weight.detach().clone()
        again.validate(model, loader(2), verbose=False)
        again.test(model, loader(2), verbose=False)
        assert torch.equal(model.first.weight, last)


class TestFinders:
    def constrained(self, errors):
        """A model that keeps how far its weight is from unitary at each training step."""

        class Watched(Sized):
            def on_train_batch_start(self, batch, batch_idx):
                errors.append(error(self.first.weight))

        return Watched()

    @pytest.mark.parametrize("how", ["callback", "tuner"])
    def test_the_learning_rate_is_sought_with_the_constraint_and_leaves_no_trace(self, how):
        errors = []
        torch.manual_seed(0)
        model, method = self.constrained(errors), ProjUNN(PATTERNS)
        if how == "callback":
            trainer(method, LearningRateFinder(1e-4, 1.0, num_training_steps=30), max_epochs=6).fit(model)
        else:
            run = trainer(method, max_epochs=6)
            Tuner(run).lr_find(model, min_lr=1e-4, max_lr=1.0, num_training=30)
            assert not run.optimizers[0]._optimizer_step_post_hooks
            run.fit(model)
        assert max(errors) < 1e-6
        assert len(errors) == 30 + 36
        torch.manual_seed(0)
        alone = Sized()
        assert alone.learning_rate != model.learning_rate
        alone.learning_rate = model.learning_rate
        trainer(ProjUNN(PATTERNS), max_epochs=6).fit(alone)
        assert same(model, alone)

    @pytest.mark.parametrize("how", ["callback", "tuner"])
    def test_the_batch_size_is_sought_with_the_constraint_and_leaves_no_trace(self, how):
        errors = []
        torch.manual_seed(0)
        model, method = self.constrained(errors), ProjUNN(PATTERNS)
        if how == "callback":
            trainer(method, BatchSizeFinder(max_trials=2, steps_per_trial=3)).fit(model)
        else:
            run = trainer(method)
            Tuner(run).scale_batch_size(model, max_trials=2, steps_per_trial=3)
            run.fit(model)
        assert model.batch_size == 4
        assert max(errors) < 1e-6
        assert len(errors) == 6 + 12
        assert steps(method) == dict.fromkeys(PATTERNS, 12)
        torch.manual_seed(0)
        alone = Sized()
        trainer(ProjUNN(PATTERNS)).fit(alone)
        assert same(model, alone)


class TestRefused:
    def test_stochastic_averaging_of_weights(self):
        message = "StochasticWeightAveraging averages weights, and the mean of .* use WeightAveraging or EMAWeightAver"
        with pytest.raises(ConstraintError, match=message):
            trainer(StochasticWeightAveraging(1e-2), ProjUNN(PATTERNS)).fit(Net(), loader())

    def test_pruning_of_a_constrained_weight_but_not_of_others(self):
        def pruning(model, name):
            return ModelPruning("l1_unstructured", [(model.get_submodule(name), "weight")], amount=0.5)

        model = Net()
        with pytest.raises(ConstraintError, match=r"ModelPruning prunes first\.weight.*out of parameters_to_prune"):
            trainer(pruning(model, "first"), ProjUNN(PATTERNS)).fit(model, loader())
        model = Net()
        fits(model, pruning(model, "head"))
        assert (model.head.weight == 0).any()

    @pytest.mark.parametrize("how", ["pruned", "parametrized"])
    def test_removal_of_a_constrained_weight_in_mid_run(self, how):
        class Change(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if how == "pruned":
                    prune.l1_unstructured(pl_module.first, "weight", 0.5)
                else:
                    parametrizations.weight_norm(pl_module.first)

        model = Net()
        with pytest.raises(ConstraintError, match=r"parameter first\.weight is gone from Net.*but not removed, pruned"):
            trainer(Change(), ProjUNN(PATTERNS)).fit(model, loader())
        assert error(model.second.weight) < 1e-6

    @pytest.mark.parametrize("pattern", ["first.weight", "first.*weight*", None])
    @pytest.mark.parametrize("how", ["orthogonal", "weight_norm", "spectral_norm", "pruned"])
    def test_a_weight_that_is_computed_from_another(self, how, pattern):
        model = Net()
        if pattern is None:
            orthogonal(model.first)
        if how == "pruned":
            prune.l1_unstructured(model.first, "weight", 0.5)
        else:
            getattr(parametrizations, how)(model.first)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ConstraintError, match=r"first\.weight is computed from first\..*remove_parametrizations"):
            trainer(ProjUNN(pattern)).fit(model, loader())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        if how != "pruned":
            parametrize.remove_parametrizations(model.first, "weight")
            fits(model)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # torch.compile causes these warnings
class TestCompiled:
    @pytest.mark.parametrize("how", ["a module", "a module in place", "the LightningModule"])
    def test_weights_have_the_names_that_the_user_knows(self, how):
        plain, model = Net(), Net()
        model.load_state_dict(plain.state_dict())
        if how == "a module":
            model.first = torch.compile(model.first, backend="aot_eager")
        elif how == "a module in place":
            model.first.compile(backend="aot_eager")
        to_fit = torch.compile(model, backend="aot_eager") if how == "the LightningModule" else model
        method = ProjUNN(PATTERNS)
        trainer(method).fit(to_fit, loader())
        assert list(method.projector.constraints) == PATTERNS
        fits(plain)
        assert error(model.first.weight) < 1e-6
        torch.testing.assert_close(model.first.weight, plain.first.weight)
        assert ("first._orig_mod.weight" in model.state_dict()) == (how == "a module")  # torch.compile's own naming

    @pytest.mark.parametrize("pattern", ["second.weight", "[fs]*.weight"])
    def test_patterns_match_weights_outside_of_a_compiled_module_that_is_declared(self, pattern):
        model = Net()
        model.first = torch.compile(orthogonal(model.first), backend="eager")
        assert list(fits(model, ProjUNN(pattern)).projector.constraints) == PATTERNS


class TestModels:
    def test_gradient_checkpointing_changes_no_bit(self):
        class Recomputing(Net):
            def forward(self, x):
                x = torch.tanh(self.into(x))
                for layer in (self.first, self.second):
                    x = torch.tanh(checkpoint(layer, x, use_reentrant=False))
                return self.head(x)

        plain, model = Net(), Recomputing()
        model.load_state_dict(plain.state_dict())
        fits(plain)
        fits(model)
        assert same(plain, model)

    def test_tied_weights_are_constrained_once(self):
        model = Net()
        model.second.weight = model.first.weight
        assert steps(fits(model)) == {"first.weight": 12}
        assert model.second.weight is model.first.weight

    def test_a_run_with_all_constrained_weights_frozen_moves_the_others_only(self):
        model = Net()
        for layer in (model.first, model.second):
            orthogonal(layer).requires_grad_(False)
        before = [model.first.weight.clone(), model.head.weight.clone()]
        trainer(ProjUNN(PATTERNS)).fit(model, loader())
        assert torch.equal(model.first.weight, before[0])
        assert not torch.equal(model.head.weight, before[1])

    def test_weights_that_are_unfrozen_in_mid_run_in_an_optimizer_that_holds_all(self):
        class Unfreeze(Callback):
            def on_train_epoch_start(self, trainer, pl_module):
                pl_module.first.requires_grad_(trainer.current_epoch > 0)

        model = Net()
        model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.05)
        fits(model, Unfreeze())

    @pytest.mark.parametrize("resume", [False, True])
    def test_backbone_finetuning_of_constrained_weights(self, resume, tmp_path):
        class Headed(Net):
            backbone = property(lambda self: nn.ModuleList([self.first, self.second]))

        options = {"unfreeze_backbone_at_epoch": 1, "backbone_initial_lr": 0.05, "verbose": False}
        model, method = Headed(), ProjUNN(PATTERNS)
        run = trainer(BackboneFinetuning(**options), method, max_epochs=2)
        run.fit(model, loader())
        if resume:
            run.save_checkpoint(tmp_path / "last.ckpt")
            model, method = Headed(), ProjUNN(PATTERNS)
            run = trainer(BackboneFinetuning(**options), method, max_epochs=3)
            run.fit(model, loader(), ckpt_path=tmp_path / "last.ckpt")
        assert steps(method) == dict.fromkeys(PATTERNS, 12 if resume else 6)
        assert error(model.first.weight) < 1e-6


class TestTrainers:
    @pytest.mark.parametrize(
        "options",
        [
            {"overfit_batches": 2, "max_epochs": 6},
            {"fast_dev_run": 3},
            {"inference_mode": True},
            {"inference_mode": False},
            {"detect_anomaly": True},
            {"barebones": True, "enable_checkpointing": None, "logger": None, "enable_progress_bar": None},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_options(self, options):
        fits(Net() if "barebones" in options else Validated(), **options)

    @pytest.mark.parametrize(
        "callback",
        [
            ModelSummary(),
            RichModelSummary(),
            EarlyStopping("unitarity_error", stopping_threshold=0.0, check_on_train_epoch_end=True),
            GradientAccumulationScheduler({0: 2, 1: 3}),
        ],
        ids=lambda callback: type(callback).__name__,
    )
    def test_callbacks(self, callback):
        method = fits(Validated(), callback)
        expected = 5 if isinstance(callback, GradientAccumulationScheduler) else 12  # 6 / 2 + 6 / 3
        assert steps(method) == dict.fromkeys(PATTERNS, expected)
