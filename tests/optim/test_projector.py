import copy
import math

import pytest
import torch
from torch import nn

from projunn_lightning import ConstraintError, Projector, ProjUNNError, orthogonal
from projunn_lightning.constraint import declared
from projunn_lightning.functional import SAMPLERS, init, rank_k, unitarity_error
from projunn_lightning.optim.step import CHECK_EVERY
from tests.support.oracles import ORACLES

OPTIMIZERS = {
    "sgd": lambda p, **o: torch.optim.SGD(p, lr=0.05, **o),
    "momentum": lambda p, **o: torch.optim.SGD(p, lr=0.05, momentum=0.9, **o),
    "nesterov": lambda p, **o: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, **o),
    "rmsprop": lambda p, **o: torch.optim.RMSprop(p, lr=1e-2, **o),
    "adam": lambda p, **o: torch.optim.Adam(p, lr=1e-2, **o),
    "adamw": lambda p, **o: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.0, **o),
    "adagrad": lambda p, **o: torch.optim.Adagrad(p, lr=1e-2, **o),
}
FUSED = ["sgd", "momentum", "nesterov", "adam", "adamw", "adagrad"]  # torch has no fused RMSprop


class Models:
    """Modules without any preparation. Each attribute is (module, shape of a batch, patterns)."""

    rnn = (lambda: nn.RNN(3, 6, num_layers=2), (5, 2, 3), ["weight_hh_l*"])
    lstm = (lambda: nn.LSTM(3, 6), (5, 2, 3), ["weight_hh_l0"])
    gru = (lambda: nn.GRU(3, 6), (5, 2, 3), ["weight_hh_l0"])
    square = (lambda: nn.Linear(6, 6), (4, 6), "weight")
    tall = (lambda: nn.Linear(4, 7), (4, 4), "weight")
    wide = (lambda: nn.Linear(7, 4), (4, 7), "weight")
    conv = (lambda: nn.Conv2d(3, 8, 3), (2, 3, 6, 6), "weight")
    channels_last = (lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last), (2, 3, 6, 6), "weight")
    attention = (lambda: Attention(), (4, 2, 6), ["*in_proj_weight", "*out_proj.weight"])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mha = nn.MultiheadAttention(6, 2)

    def forward(self, x):
        return self.mha(x, x, x)


MODELS = [name for name in vars(Models) if not name.startswith("_")]


def output(model, x):
    out = model(x)
    return out[0] if isinstance(out, tuple) else out


def train(model, optimizer, batch, steps=5):
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(batch, dtype=next(model.parameters()).dtype)
        (output(model, x) - 1).square().mean().backward()
        optimizer.step()


def worst(projector):
    return max(projector.unitarity_errors().values())


class TestKeepsWeightsUnitary:
    @pytest.mark.parametrize("retraction", ORACLES)
    @pytest.mark.parametrize("name", MODELS)
    def test_in_modules_that_nobody_prepared(self, name, retraction):
        build, batch, patterns = getattr(Models, name)
        model = build().double()
        keys = list(model.state_dict())
        optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
        projector = Projector(model, patterns, retraction=retraction, rank=2).attach(optimizer)
        start = {n: model.get_parameter(n).clone() for n in projector.constraints}
        train(model, optimizer, batch)
        assert worst(projector) < 1e-14
        assert all((model.get_parameter(n) - start[n]).abs().max() > 1e-3 for n in projector.constraints)
        assert list(model.state_dict()) == keys

    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("name", ["lstm", "conv", "wide"])
    def test_with_every_sampler(self, name, sampler):
        build, batch, patterns = getattr(Models, name)
        model = build().double()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        projector = Projector(model, patterns, sampler=sampler, rank=2).attach(optimizer)
        train(model, optimizer, batch)
        assert worst(projector) < 1e-14

    @pytest.mark.parametrize(
        ("name", "options"),
        [(name, {"foreach": foreach}) for name in OPTIMIZERS for foreach in (False, True)]
        + [(name, {"fused": True}) for name in FUSED],
        ids=str,
    )
    def test_with_every_optimizer(self, name, options):
        model = nn.LSTM(3, 6)
        optimizer = OPTIMIZERS[name](model.parameters(), **options)
        projector = Projector(model, "weight_hh_l0").attach(optimizer)
        train(model, optimizer, (5, 2, 3), steps=10)
        assert worst(projector) < 1e-6

    def test_complex_parameters(self):
        layer = orthogonal(nn.Linear(6, 6, dtype=torch.complex64), init="haar")
        optimizer = torch.optim.RMSprop(layer.parameters(), lr=1e-2)
        projector = Projector(layer).attach(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            (layer(torch.randn(4, 6, dtype=torch.complex64)) - 1).abs().square().mean().backward()
            optimizer.step()
        assert worst(projector) < 1e-6
        assert layer.weight.imag.abs().max() > 0.1

    def test_with_a_closure(self):
        model = nn.Linear(6, 6)
        for optimizer in (torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.LBFGS(model.parameters(), lr=0.1)):
            projector = Projector(model, "weight").attach(optimizer)
            x = torch.randn(8, 6)

            def closure(optimizer=optimizer, x=x):
                optimizer.zero_grad()
                loss = (model(x) - 1).square().mean()
                loss.backward()
                return loss

            before = model.weight.clone()
            for _ in range(3):
                optimizer.step(closure)
            assert worst(projector) < 1e-6
            assert not torch.equal(before, model.weight)
            projector.detach()

    def test_training_still_learns(self):
        """A layer that can only rotate learns a rotation."""
        target = init.haar_(torch.empty(8, 8))
        target[0] *= target.det().sign()  # a rotation, which is connected to the identity
        model = orthogonal(nn.Linear(8, 8, bias=False), init="identity")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        Projector(model, sampler="subspace").attach(optimizer)
        for _ in range(1500):
            optimizer.zero_grad()
            x = torch.randn(32, 8)
            (model(x) - x @ target.T).square().mean().backward()
            optimizer.step()
        assert (model.weight - target).abs().max() < 1e-3


class TestTheUpdate:
    @pytest.mark.parametrize("retraction", ORACLES)
    @pytest.mark.parametrize("shape", [(6, 6), (8, 5), (5, 8)], ids=str)
    def test_is_the_retraction_of_the_rank_k_part_of_the_optimizer_s_update(self, shape, retraction):
        layer = orthogonal(nn.Linear(shape[1], shape[0], bias=False, dtype=torch.float64), init="haar")
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
        Projector(layer, rank=2, retraction=retraction, sampler="svd", lr_divider=4.0).attach(optimizer)
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.randn_like(before)
        optimizer.step()
        a, b = rank_k(-0.3 * layer.weight.grad, 2, "svd")
        expected = ORACLES[retraction](before, a @ b.mH / 4.0)
        torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-12, rtol=0)

    def test_leaves_other_parameters_to_the_optimizer(self):
        model, plain = (nn.Linear(4, 4) for _ in range(2))
        plain.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Projector(model, "weight").attach(optimizer)
        model.bias.grad = torch.ones(4)
        model.weight.grad = torch.ones(4, 4)
        optimizer.step()
        torch.testing.assert_close(model.bias, plain.bias - 0.1)

    @pytest.mark.parametrize("retraction", ORACLES)
    @pytest.mark.parametrize("rank", [1, 3])
    def test_a_zero_update_changes_no_bit(self, retraction, rank):
        model = nn.Linear(9, 9)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Projector(model, "weight", retraction=retraction, rank=rank).attach(optimizer)
        before = model.weight.clone()
        for grad in (torch.zeros(9, 9), None):
            model.weight.grad = grad
            optimizer.step()
            assert torch.equal(model.weight, before)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("retraction", ORACLES)
    @pytest.mark.parametrize("rank", [1, 3])
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_an_update_that_is_not_finite_leaves_every_bit_and_is_counted(self, bad, rank, retraction, sampler):
        model = nn.GRU(3, 5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, "weight_hh_l0", rank=rank, retraction=retraction, sampler=sampler).attach(
            optimizer
        )
        train(model, optimizer, (4, 2, 3), steps=1)
        before = model.weight_hh_l0.clone()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        model.weight_hh_l0.grad[7, 2] = bad
        optimizer.step()
        assert torch.equal(model.weight_hh_l0, before)
        assert projector.skipped_updates == 1
        train(model, optimizer, (4, 2, 3), steps=2)  # nothing that is not finite is left
        assert not torch.equal(model.weight_hh_l0, before)
        assert worst(projector) < 1e-6
        assert projector.skipped_updates == 1

    def test_repeats_for_a_seed_whatever_else_draws_random_numbers(self):
        def run(seed, noise):
            torch.manual_seed(0)
            model = nn.Linear(6, 6)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            Projector(model, "weight", seed=seed).attach(optimizer)
            for i in range(5):
                torch.randn(noise)
                model.weight.grad = torch.linspace(-1, 1, 36).view(6, 6).roll(i, 0) ** 3
                optimizer.step()
            return model.weight

        assert torch.equal(run(0, 0), run(0, 7))
        assert not torch.equal(run(0, 0), run(1, 0))

    def test_draws_another_sketch_for_every_step_and_every_parameter(self):
        """The same gradient rotates each weight and each step in another plane."""
        model = nn.ModuleList([orthogonal(nn.Linear(8, 8), init="identity") for _ in range(2)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        Projector(model, rank=1).attach(optimizer)
        grad, turns = torch.randn(8, 8), []
        for _ in range(2):
            for layer in model:
                torch.nn.init.eye_(layer.weight)
                layer.weight.grad = grad.clone()
            optimizer.step()
            turns += [layer.weight.detach().clone() for layer in model]
        assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(turns) for b in turns[:i])

    def test_subspace_starts_from_the_last_update_that_was_not_zero(self):
        u, v = torch.linalg.qr(torch.randn(30, 2)).Q, torch.linalg.qr(torch.randn(30, 2)).Q
        grad = u @ torch.diag(torch.tensor([1.0, 0.9])) @ v.mT
        model = nn.Linear(30, 30)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        projector = Projector(model, "weight", rank=1, sampler="subspace").attach(optimizer)

        def basis():
            return projector.state_dict()["weight"]["basis"]

        alignment = []
        for _ in range(60):
            model.weight.grad = grad.clone()
            optimizer.step()
            alignment.append(float((basis().mT @ v[:, :1]).abs()))
        assert alignment[-1] > 0.999  # power steps find the first direction beside a similarly strong one
        before = basis().clone()
        for grad in (torch.zeros(30, 30), torch.full((30, 30), float("nan"))):
            model.weight.grad = grad
            optimizer.step()
            assert torch.equal(basis(), before)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_continues_from_its_state_as_if_it_was_never_interrupted(self, sampler):
        grads = torch.randn(6, 8, 8)

        def attached(model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            return optimizer, Projector(model, "weight", rank=2, sampler=sampler).attach(optimizer)

        def steps(model, optimizer, some):
            for grad in some:
                model.weight.grad = grad.clone()
                optimizer.step()

        model = nn.Linear(8, 8)
        optimizer, projector = attached(model)
        steps(model, optimizer, grads[:3])
        resumed = nn.Linear(8, 8)
        resumed.load_state_dict(model.state_dict())
        weight = resumed.weight.clone()
        new_optimizer, new_projector = attached(resumed)
        resumed.weight.data.copy_(weight)  # a checkpoint is loaded in this order, too
        new_projector.load_state_dict(copy.deepcopy(projector.state_dict()))
        steps(model, optimizer, [*grads[3:], grads[0] * float("nan")])
        steps(resumed, new_optimizer, [*grads[3:], grads[0] * float("nan")])
        assert torch.equal(model.weight, resumed.weight)

    def test_restores_its_counters(self):
        model = nn.Linear(8, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        projector = Projector(model, "weight").attach(optimizer)
        model.weight.data.add_(1e-4 * torch.randn(8, 8))
        for step in range(CHECK_EVERY):
            model.weight.grad = torch.full((8, 8), float("nan") if step == 0 else 0.0)
            optimizer.step()
        restored = Projector(model, "weight")
        restored.load_state_dict(projector.state_dict())
        assert restored.skipped_updates == restored.reorthonormalisations == 1
        assert restored.state_dict()["weight"]["step"] == CHECK_EVERY


class TestDrift:
    @pytest.mark.parametrize("sampler", ["lsi", "tangent"])
    @pytest.mark.parametrize("retraction", ORACLES)
    @pytest.mark.parametrize(
        ("shape", "rank", "steps"),
        [
            ((32, 32), 1, 4_000),
            pytest.param((32, 32), 1, 20_000, marks=pytest.mark.slow),
            ((32, 32), 4, 2_000),
            pytest.param((32, 32), 4, 20_000, marks=pytest.mark.slow),
            pytest.param((48, 32), 1, 20_000, marks=pytest.mark.slow),
            pytest.param((48, 32), 4, 20_000, marks=pytest.mark.slow),
            pytest.param((128, 128), 1, 20_000, marks=pytest.mark.slow),
            pytest.param((128, 128), 4, 20_000, marks=pytest.mark.slow),
            pytest.param((32, 32), 1, 1_000_000, marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_stays_below_the_tolerance_for_thousands_of_steps_of_float32(self, shape, rank, steps, retraction, sampler):
        model = nn.Linear(shape[1], shape[0], bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        settings = {"rank": rank, "retraction": retraction, "sampler": sampler}
        projector = Projector(model, "weight", **settings).attach(optimizer)
        noise = torch.randn(100, *shape) / math.sqrt(shape[0] * shape[1])  # updates of norm about 1
        largest = 0.0
        for step in range(steps):
            model.weight.grad = noise[step % 100]
            optimizer.step()
            if step % 500 == 499:
                largest = max(largest, float(worst(projector)))
        assert largest < 1e-5
        assert projector.reorthonormalisations < steps / CHECK_EVERY / 4  # most checks of the drift correct nothing

    def test_is_corrected_where_it_passes_half_of_another_tolerance(self):
        for tolerance, corrections in ((1e-2, 0), (1e-6, 1)):
            model = nn.Linear(32, 32)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            projector = Projector(model, "weight", tolerance=tolerance).attach(optimizer)
            model.weight.data.add_(1e-6 * torch.randn(32, 32))
            for _ in range(CHECK_EVERY):
                optimizer.step()
            assert projector.reorthonormalisations == corrections

    def test_is_corrected_where_it_passes_half_the_tolerance(self):
        model = nn.Linear(32, 32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        projector = Projector(model, "weight").attach(optimizer)
        for drift, corrections in ((2e-7, 0), (1e-4, 1), (1.0, 2)):
            model.weight.data.add_(drift * torch.randn(32, 32))
            for _ in range(CHECK_EVERY):
                model.weight.grad = torch.zeros(32, 32)
                optimizer.step()
            assert projector.reorthonormalisations == corrections
            assert worst(projector) < (5e-6 if corrections == 0 else 1e-6)


class TestAttach:
    def test_a_weight_that_joins_the_optimizer_later_is_constrained_from_then_on(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        model[1].requires_grad_(False)
        optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
        projector = Projector(model, "*.weight").attach(optimizer)
        optimizer.add_param_group({"params": model[1].requires_grad_().parameters()})
        for layer in model:
            layer.weight.grad = torch.randn(4, 4)
        optimizer.step()
        assert worst(projector) < 1e-6

    def test_hooks_several_optimizers_and_detach_removes_the_hooks(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model]
        projector = Projector(model, "*.weight").attach(*optimizers)
        for optimizer, layer in zip(optimizers, model, strict=True):
            layer.weight.grad = torch.randn(4, 4)
            optimizer.step()
        assert worst(projector) < 1e-6
        projector.detach()
        optimizers[0].step()
        assert worst(projector) > 1e-3
        projector.detach()

    def test_a_weight_that_is_loaded_afterwards_is_unitary_after_the_next_step(self):
        layer = orthogonal(nn.Linear(8, 8, bias=False))
        optimizers = [torch.optim.SGD(layer.parameters(), lr=0.01) for _ in range(2)]
        Projector(layer).attach(*optimizers)
        layer.load_state_dict({"weight": torch.randn(8, 8)})
        layer.weight.grad = torch.ones(8, 8)
        with pytest.warns(UserWarning, match="weight has unitarity error .*; it is moved to the nearest unitary"):
            optimizers[0].step()
        assert unitarity_error(layer.weight.detach()) < 1e-6
        for optimizer in (*optimizers, *optimizers):  # the steps of the other one are no change by somebody else
            optimizer.step()
        assert unitarity_error(layer.weight.detach()) < 1e-6

    def test_as_a_context_manager_it_detaches_at_the_end(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Projector(model, "weight").attach(optimizer) as projector:
            assert projector.is_attached_to(optimizer)
        assert not projector.is_attached_to(optimizer)
        model.weight.grad = torch.ones(4, 4)
        optimizer.step()
        assert unitarity_error(model.weight.detach()) > 1e-3

    def test_twice_is_refused(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, "weight").attach(optimizer)
        with pytest.raises(ProjUNNError, match="attached already; call detach"):
            projector.attach(optimizer)

    def test_refuses_optimizers_that_do_not_hold_a_constrained_parameter(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConstraintError, match=r"parameter 1\.weight is held by no optimizer"):
            Projector(model, "*.weight").attach(optimizer)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        model[1].weight.requires_grad_(False)
        Projector(model, "*.weight").attach(optimizer)

    def test_refuses_a_precision_that_was_lowered_later(self):
        model = nn.Linear(4, 4)
        projector = Projector(model, "weight")
        model.half()
        with pytest.raises(ConstraintError, match=r"weight is torch\.float16.*mixed precision"):
            projector.attach(torch.optim.SGD(model.parameters(), lr=0.1))

    def test_warns_once_of_weight_decay_on_a_constrained_weight(self):
        model = nn.Linear(4, 4)
        optimizer = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias]}], weight_decay=0.01)
        with pytest.warns(UserWarning, match=r"weight_decay=0\.01 on weight: decay pulls along") as caught:
            Projector(model, "weight").attach(optimizer)
        assert len(caught) == 1

    def test_moves_a_weight_that_lost_its_unitarity_back_with_a_warning(self):
        model = orthogonal(nn.Linear(4, 4), init="haar")
        projector = Projector(model)
        model.load_state_dict(nn.Linear(4, 4).state_dict())
        with pytest.warns(UserWarning, match="weight has unitarity error .* moved to the nearest"):
            projector.attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert worst(projector) < 1e-6

    def test_follows_a_weight_into_double_precision(self):
        model = orthogonal(nn.Linear(4, 4), init="haar")
        projector = Projector(model)
        model.double()
        projector.attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert worst(projector) < 1e-14

    def test_leaves_the_bits_of_unitary_weights(self):
        model = orthogonal(nn.Linear(4, 4), init="haar")
        before = model.weight.clone()
        Projector(model).attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert torch.equal(model.weight, before)


class TestWhatIsConstrained:
    def test_declared_and_chosen_parameters_together(self):
        model = nn.ModuleList([orthogonal(nn.Linear(4, 4), init="identity"), nn.Linear(4, 4), nn.Linear(4, 4)])
        projector = Projector(model, ["1.weight"]).attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert list(projector.constraints) == ["0.weight", "1.weight"]
        assert torch.equal(model[0].weight, torch.eye(4))
        assert worst(projector) < 1e-6
        assert list(declared(model)) == ["0.weight"]  # a pattern does not declare a weight

    def test_weights_that_are_tied_later_are_constrained_once(self):
        model = nn.ModuleList(orthogonal(nn.Linear(6, 6, bias=False).double()) for _ in range(2))
        projector = Projector(model)
        alone = orthogonal(nn.Linear(6, 6, bias=False).double())
        alone.load_state_dict(model[0].state_dict())
        model[1].weight = model[0].weight
        grad = torch.outer(torch.ones(6), torch.arange(6.0)).double()
        for module, attached in ((model, projector), (alone, Projector(alone))):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            attached.attach(optimizer)
            next(module.parameters()).grad = grad
            optimizer.step()
        torch.testing.assert_close(model[0].weight, alone.weight)  # every sketch of a rank-1 update is the same

    def test_a_tied_weight_is_constrained_once(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        model[1].weight = model[0].weight
        assert list(Projector(model, "*.weight").constraints) == ["0.weight"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"coordinates": "skew"}, r"are for square matrices, and 1\.weight is 3 x 4"),
            ({"parameters": "*.kernel"}, r"'\*\.kernel' matches no parameter.*0\.weight, 1\.weight"),
            ({"parameters": ["*.weight", "0.bias"]}, r"0\.bias has shape \(4,\)"),
            ({"parameters": []}, "ModuleList has nothing to constrain"),
        ],
        ids=str,
    )
    def test_settings_and_patterns_that_do_not_fit_are_refused_before_any_weight_is_touched(self, options, message):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 3)])
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConstraintError, match=message):
            Projector(model, **{"parameters": "*.weight", **options})
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not declared(model)

    def test_one_bad_parameter_leaves_the_good_ones_alone(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        nn.init.constant_(model[1].weight, float("inf"))
        before = model[0].weight.clone()
        with pytest.raises(ConstraintError, match=r"1\.weight holds values that are not finite"):
            Projector(model, "*.weight").attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert torch.equal(model[0].weight, before)
