"""Parameters that join an optimizer in mid-run, and parameters that are replaced by others."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from projunn_lightning import ConstraintError, Projector, ProjUNN, orthogonal
from tests.support.fits import Net, error, loader, steps, trainer


def attached(model, patterns=None, optimizer=torch.optim.SGD, **options):
    optimizer = optimizer(list(model.parameters()), lr=0.1)
    return optimizer, Projector(model, patterns, **options).attach(optimizer)


def step(model, optimizer):
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def unitary(*layers):
    return max(error(layer.weight) for layer in layers) < 1e-6


def filled(layer, value):
    nn.init.constant_(layer.weight, value)
    return layer


class TestAParameterThatJoins:
    @pytest.mark.parametrize("patterns", [None, "*.weight"], ids=["declared", "by pattern"])
    def test_is_constrained_from_the_step_at_which_it_joins(self, patterns):
        model = nn.ModuleList([orthogonal(nn.Linear(4, 4))])
        optimizer, projector = attached(model, patterns)
        step(model, optimizer)
        model.append(nn.Linear(4, 4))
        if patterns is None:
            orthogonal(model[1])
        step(model, optimizer)
        assert list(projector.constraints) == ["0.weight"]  # until it joins
        optimizer.add_param_group({"params": model[1].parameters()})
        before = model[1].weight.clone()
        step(model, optimizer)
        assert steps(projector) == {"0.weight": 3, "1.weight": 1}
        assert unitary(*model)
        assert not torch.equal(model[1].weight, before)
        step(model, optimizer)
        assert steps(projector) == {"0.weight": 4, "1.weight": 2}
        assert unitary(*model)

    def test_in_a_closure_is_constrained_too(self):
        model = nn.ModuleList([nn.Linear(4, 4)])
        optimizer, _ = attached(model, "*.weight")

        def closure():
            if len(model) == 1:
                model.append(nn.Linear(4, 4))
                optimizer.add_param_group({"params": model[1].parameters()})
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)

        optimizer.step(closure)
        assert unitary(*model)

    def test_changes_no_bit_of_the_other_weights(self):
        weights = []
        for more in (False, True):
            torch.manual_seed(0)
            model = nn.ModuleList([nn.Linear(4, 4)])
            optimizer, _ = attached(model, "*.weight", sampler="subspace")
            for at in range(4):
                if more and at == 2:
                    model.append(nn.Linear(4, 3))
                    optimizer.add_param_group({"params": model[1].parameters()})
                torch.manual_seed(at)
                step(model[:1], optimizer)
            weights.append(model[0].weight)
        assert torch.equal(*weights)

    def test_is_searched_for_only_when_the_parameters_have_changed(self, monkeypatch):
        model, looks = nn.ModuleList([nn.Linear(4, 4)]), []
        optimizer, projector = attached(model, "*.weight")
        choose = projector._choose
        monkeypatch.setattr(projector, "_choose", lambda: looks.append(1) or choose())
        for _ in range(3):
            step(model, optimizer)
        assert not looks
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
        for _ in range(3):
            step(model, optimizer)
        assert len(looks) == 1

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (lambda: nn.Linear(4, 4).half(), r"1\.weight is torch\.float16"),
            (lambda: filled(nn.Linear(4, 4), float("nan")), r"1\.weight holds values that are not finite"),
        ],
    )
    def test_is_refused_with_the_messages_of_the_start(self, layer, message):
        model = nn.ModuleList([nn.Linear(4, 4)])
        optimizer, projector = attached(model, "*.weight", rank=2)
        model.append(layer())
        optimizer.add_param_group({"params": model[1].parameters()})
        before = model[0].weight.clone()
        with pytest.raises(ConstraintError, match=message):
            step(model, optimizer)
        projector.detach()
        assert torch.equal(model[0].weight, before)

    def test_is_named_if_a_pattern_matches_it_and_it_is_no_matrix(self):
        model = nn.ModuleList([nn.Linear(4, 4)])
        optimizer, projector = attached(model, "*.weight")
        model.append(nn.LayerNorm(4))
        optimizer.add_param_group({"params": model[1].parameters()})
        with pytest.warns(UserWarning, match=r"also match 1\.weight: only parameters of 2 or more dimensions"):
            step(model, optimizer)
        assert list(projector.constraints) == ["0.weight"]

    def test_causes_a_warning_if_it_is_not_unitary_or_has_weight_decay(self):
        model = nn.ModuleList([orthogonal(nn.Linear(4, 4))])
        optimizer, _ = attached(model)
        model.append(orthogonal(nn.Linear(4, 4)))
        model[1].weight.data.mul_(2)
        optimizer.add_param_group({"params": model[1].parameters(), "weight_decay": 0.1})
        with (
            pytest.warns(UserWarning, match=r"1\.weight has unitarity error 3\.0e\+00.* moved to the nearest"),
            pytest.warns(UserWarning, match=r"weight_decay=0\.1 on 1\.weight: decay"),
        ):
            step(model, optimizer)
        assert unitary(*model)

    @pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_batch_start", "on_before_zero_grad"])
    def test_in_a_fit_is_constrained(self, hook):
        class Grow(Callback):
            def grow(self, trainer, pl_module, *args):
                if trainer.global_step == 6 and not hasattr(pl_module, "more"):
                    pl_module.more = nn.Linear(6, 6)
                    trainer.optimizers[0].add_param_group({"params": pl_module.more.parameters()})

        class Growing(Net):
            def forward(self, x):
                x = self.second(torch.tanh(self.first(torch.tanh(self.into(x)))))
                return self.head(torch.tanh(self.more(x) if hasattr(self, "more") else x))

        setattr(Grow, hook, Grow.grow)
        model, method = Growing(), ProjUNN("[fm][io]r*.weight")
        trainer(method, Grow()).fit(model, loader())
        assert steps(method) == {"first.weight": 12, "more.weight": 5 if hook == "on_before_zero_grad" else 6}
        assert unitary(model.first, model.more)


class TestAParameterThatIsReplaced:
    def test_is_constrained_like_the_previous_one(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        optimizer, projector = attached(model, "*.weight", optimizer=torch.optim.Adam)
        step(model, optimizer)
        parameters = optimizer.param_groups[0]["params"]
        (place,) = (i for i, parameter in enumerate(parameters) if parameter is model[1].weight)
        model[1].weight = parameters[place] = nn.Parameter(orthogonal(nn.Linear(4, 4)).weight.detach().clone())
        for _ in range(2):
            step(model, optimizer)
            assert unitary(*model)
        assert steps(projector) == {"0.weight": 3, "1.weight": 3}

    def test_is_refused_if_no_optimizer_holds_the_new_one(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        optimizer, projector = attached(model, "*.weight")
        model[1].weight = nn.Parameter(torch.eye(4))
        with pytest.raises(ConstraintError, match=r"parameter 1\.weight is held by no optimizer: pass it to one"):
            step(model, optimizer)
        model[1].weight.requires_grad_(False)
        step(model, optimizer)
        assert steps(projector) == {"0.weight": 1, "1.weight": 0}
        assert unitary(*model)

    def test_is_constrained_separately_if_it_was_tied_before(self):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        model[1].weight = model[0].weight
        optimizer, projector = attached(model, "*.weight")
        step(model, optimizer)
        model[1].weight = nn.Parameter(model[0].weight.detach().clone())
        optimizer.add_param_group({"params": [model[1].weight]})
        step(model, optimizer)
        assert steps(projector) == {"0.weight": 2, "1.weight": 1}
        assert not torch.equal(model[0].weight, model[1].weight)
        assert unitary(*model)

    def test_follows_its_weight_into_double_precision(self):
        model = nn.ModuleList([nn.Linear(4, 4)])
        optimizer, _ = attached(model, "*.weight")
        step(model, optimizer)
        model.double()
        step(model, optimizer)
        assert error(model[0].weight) < 1e-14
