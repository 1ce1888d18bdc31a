"""Faults in a run: bad gradients, exceptions, signals, skipped steps and half precision."""

import contextlib
import itertools
import os
import random
import signal
import sys
import time

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

import projunn_lightning.optim.projector
import projunn_lightning.optim.step
from projunn_lightning import ConstraintError, Projector, ProjUNN
from projunn_lightning.functional import SAMPLERS
from tests.support.fits import Net, error, loader, steps, trainer

PATTERNS = ["first.weight", "second.weight"]  # they have one shape, so they are updated together


class Poison(Callback):
    """Writes NaNs and infinities to gradients, and stores the weights before each step and after the last one."""

    def __init__(self, plan):
        self.plan, self.weights = plan, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.weights.append([layer.weight.detach().clone() for layer in (pl_module.first, pl_module.second)])
        for layer, bad in zip((pl_module.first, pl_module.second), self.plan[trainer.global_step], strict=True):
            if bad is not None:
                layer.weight.grad[random.randrange(6), random.randrange(6)] = bad

    def on_train_end(self, trainer, pl_module):
        self.weights.append([pl_module.first.weight.detach(), pl_module.second.weight.detach()])


class TestGradientsThatAreNotFinite:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_at_random_steps_lose_no_other_step_and_no_other_weight(self, sampler):
        choices = [None, None, float("nan"), float("inf"), float("-inf")]
        plan = [random.choices(choices, k=2) for _ in range(30)]
        model, poison = Net(), Poison(plan)
        method = ProjUNN(PATTERNS, sampler=sampler, rank=2)
        trainer(method, poison, max_epochs=3).fit(model, loader(batches=10))
        moved = [
            [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
            for before, after in itertools.pairwise(poison.weights)
        ]
        assert moved == [[bad is None for bad in both] for both in plan]
        assert method.projector.skipped_updates == sum(bad is not None for both in plan for bad in both) > 10
        assert error(model.first.weight) < 1e-6
        assert error(model.second.weight) < 1e-6
        assert all(parameter.isfinite().all() for parameter in (model.into.weight, model.head.weight))

    def test_in_the_state_of_the_optimizer_stop_one_weight_and_no_other(self):
        plan = [[None, None]] * 4 + [[float("nan"), None]] + [[None, None]] * 7
        model, poison = Net(torch.optim.Adam), Poison(plan)
        method = ProjUNN(PATTERNS)
        trainer(method, poison).fit(model, loader())
        assert torch.equal(model.first.weight, poison.weights[4][0])
        assert method.projector.skipped_updates == 8  # Adam's averages keep the NaN
        assert error(model.first.weight) < 1e-6
        assert not torch.equal(model.second.weight, poison.weights[11][1])


class Stop(Callback):
    """Raises an exception or sends a signal in a training step."""

    def __init__(self, what, batch=4):
        self.what, self.batch = what, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch:
            pl_module.loss = self.what


def fail(batch):
    raise RuntimeError("of the user's own making")


def interrupt(batch):
    raise KeyboardInterrupt


def real_interrupt(batch):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


class Halfway(torch.optim.SGD):
    """Is stopped in its fifth step, after it has changed the parameters and before the method has corrected them."""

    def step(self, closure):
        closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(0.1 * parameter.grad)
        self.count = getattr(self, "count", 0) + 1
        if self.count == 5:
            raise KeyboardInterrupt


class Saver(Callback):
    """A callback of the user that saves the weights after an exception."""

    def __init__(self, path):
        self.path = path

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
class TestExceptions:
    @pytest.mark.parametrize("what", [fail, interrupt, real_interrupt], ids=lambda what: what.__name__)
    def test_detach_and_leave_unitary_weights_and_a_checkpoint_to_go_on_from(self, what, tmp_path):
        model, method = Net(), ProjUNN(PATTERNS)
        saves = ModelCheckpoint(tmp_path, save_on_exception=True)
        run = trainer(method, saves, Stop(what), enable_checkpointing=True)
        with pytest.raises(RuntimeError if what is fail else SystemExit):
            run.fit(model, loader())
        self.leaves_things_right(model, method, tmp_path / "epoch=0-step=4.ckpt")

    @pytest.mark.parametrize("order", ["first", "last", "appended", "behind another that saves"])
    def test_in_mid_step_restore_the_weights_before_they_are_saved(self, order, tmp_path):
        model, method, path = Net(Halfway), ProjUNN(PATTERNS), tmp_path / "epoch=0-step=4.ckpt"
        saves = ModelCheckpoint(tmp_path, save_on_exception=True)
        if order == "behind another that saves":
            saves = Saver(path)
        callbacks = {"first": [method, saves], "appended": [saves]}.get(order, [saves, method])
        run = trainer(*callbacks, enable_checkpointing=order != "behind another that saves")
        if order == "appended":
            run.callbacks.append(method)
        with pytest.raises(SystemExit):
            run.fit(model, loader())
        self.leaves_things_right(model, method, path)

    def test_sigterm_stops_after_the_step_with_a_checkpoint(self, tmp_path):
        def terminate(batch):
            os.kill(os.getpid(), signal.SIGTERM)
            return Net.loss(model, batch)

        model, method = Net(), ProjUNN(PATTERNS)
        saves = ModelCheckpoint(tmp_path, save_on_exception=True)
        with pytest.raises(SIGTERMException):
            trainer(method, saves, Stop(terminate, batch=3), enable_checkpointing=True).fit(model, loader())
        self.leaves_things_right(model, method, tmp_path / "epoch=0-step=4.ckpt")

    def leaves_things_right(self, model, method, path):
        saved = torch.load(path, weights_only=True)
        for name in PATTERNS:
            assert error(model.get_parameter(name)) < 1e-6
            assert error(saved["state_dict"][name]) < 1e-6
        assert not model.trainer.optimizers[0]._optimizer_step_post_hooks
        resumed, again = Net(), ProjUNN(PATTERNS)
        trainer(again).fit(resumed, loader(), ckpt_path=path)
        assert steps(again) == dict.fromkeys(PATTERNS, 12)
        assert error(resumed.first.weight) < 1e-6

    def test_at_any_line_of_a_step_leave_unitary_weights(self):
        files = {module.__file__ for module in (projunn_lightning.optim.projector, projunn_lightning.optim.step)}
        files.add(sys.modules["torch.optim.sgd"].__file__)

        def interrupted_at(line):
            """Interrupt the step at the given line, and return whether the step has that many lines."""
            model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5, foreach=False)
            projector = Projector(model, "*.weight").attach(optimizer)
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            seen = 0

            def trace(frame, event, arg):
                nonlocal seen
                seen += event == "line" and frame.f_code.co_filename in files
                if seen == line:
                    raise KeyboardInterrupt
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            with contextlib.suppress(KeyboardInterrupt):
                optimizer.step()
            sys.settrace(before)
            projector.detach()
            assert max(error(layer.weight) for layer in model) < 1e-6, line
            return seen >= line

        assert next(line for line in itertools.count(1) if not interrupted_at(line)) > 80


class TestGradientScaling:
    def test_steps_that_a_scaler_skips_leave_every_bit_and_are_no_steps_of_the_method(self):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=3)
        scales, weights = [scaler.get_scale()], []

        class Watch(Callback):
            def on_train_batch_end(self, trainer, pl_module, *args):
                scales.append(scaler.get_scale())
                weights.append(pl_module.first.weight.detach().clone())

        model, method = Net(), ProjUNN(PATTERNS)
        run = trainer(method, Watch(), plugins=MixedPrecision("16-mixed", "cpu", scaler), max_epochs=4)
        run.fit(model, loader())
        skipped = [after < before for before, after in itertools.pairwise(scales)]
        moved = [not torch.equal(before, after) for before, after in itertools.pairwise(weights)]
        assert moved == [not each for each in skipped[1:]]
        assert 3 < sum(skipped) < 20
        assert steps(method) == dict.fromkeys(PATTERNS, 24 - sum(skipped))
        assert method.projector.skipped_updates == 0
        assert error(model.first.weight) < 1e-6


class TestHalfPrecision:
    @pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
    def test_of_a_precision_plugin_is_refused_too(self, precision):
        with pytest.raises(ConstraintError, match=rf"precision='{precision}' keeps weights in half precision"):
            trainer(ProjUNN(PATTERNS), plugins=HalfPrecision(precision)).fit(Net(), loader())

    def test_of_a_model_that_is_converted_before_or_during_the_run_is_refused(self):
        with pytest.raises(ConstraintError, match=r"first\.weight is torch\.float16.*precision='bf16-mixed'"):
            trainer(ProjUNN(PATTERNS)).fit(Net().half(), loader())

        class Lower(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                pl_module.bfloat16()

        with pytest.raises(ConstraintError, match=r"first\.weight is torch\.bfloat16"):
            trainer(ProjUNN(PATTERNS), Lower()).fit(Net(), loader())
