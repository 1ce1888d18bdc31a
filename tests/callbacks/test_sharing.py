"""Several ProjUNN callbacks in one Trainer, and several projectors of one module."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from projunn_lightning import ConstraintError, Projector, ProjUNN, orthogonal
from tests.support.fits import Net, error, loader, steps, trainer


class Declared(Net):
    """Declares its first layer."""

    def __init__(self):
        super().__init__()
        orthogonal(self.first)


def test_each_callback_has_its_own_weights_and_settings():
    model, first, second = Net(), ProjUNN("first.weight", rank=2), ProjUNN("second.weight", rank=3, sampler="subspace")
    trainer(first, second).fit(model, loader())
    assert steps(first) == {"first.weight": 12}
    assert steps(second) == {"second.weight": 12}
    assert second.state_dict()["second.weight"]["basis"].shape == (6, 3)
    assert error(model.first.weight) < 1e-6
    assert error(model.second.weight) < 1e-6


def test_the_callback_without_patterns_takes_the_remaining_declared_weights():
    model, chosen, rest = Declared(), ProjUNN("second.weight"), ProjUNN()
    trainer(rest, chosen).fit(model, loader())
    assert steps(chosen) == {"second.weight": 12}
    assert steps(rest) == {"first.weight": 12}


def test_a_declared_weight_belongs_to_the_callback_whose_pattern_matches_it():
    model, chosen, rest = Declared(), ProjUNN(["first.weight", "second.weight"]), ProjUNN()
    trainer(rest, chosen).fit(model, loader())
    assert steps(chosen) == {"first.weight": 12, "second.weight": 12}
    assert steps(rest) == {}


def test_an_overlap_is_refused_with_the_name_of_the_weight():
    with pytest.raises(ConstraintError, match=r"two ProjUNN callbacks constrain first\.weight; give each"):
        trainer(ProjUNN("first.weight"), ProjUNN("*st.weight")).fit(Net(), loader())


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_each_callback_resumes_with_its_own_state(tmp_path):
    def fit(epochs, ckpt=None):
        torch.manual_seed(0)
        methods = ProjUNN("first.weight", sampler="subspace"), ProjUNN("second.weight", rank=2, feedback=0.5)
        model = Net()
        keep = ModelCheckpoint(tmp_path / str(len(list(tmp_path.iterdir()))), filename="half", save_top_k=-1)
        run = trainer(*methods, keep, max_epochs=epochs, enable_checkpointing=True)
        run.fit(model, loader(), ckpt_path=ckpt, weights_only=True)
        return model, [method.state_dict() for method in methods]

    fit(1)
    (half,) = tmp_path.rglob("half*.ckpt")
    resumed, states = fit(2, half)
    unbroken, expected = fit(2)
    assert torch.equal(resumed.first.weight, unbroken.first.weight)
    assert torch.equal(resumed.second.weight, unbroken.second.weight)
    assert torch.equal(states[0]["first.weight"]["basis"], expected[0]["first.weight"]["basis"])
    assert torch.equal(states[1]["second.weight"]["residual"], expected[1]["second.weight"]["residual"])


def test_several_projectors_share_an_optimizer():
    model = nn.ModuleList([orthogonal(nn.Linear(4, 4)), nn.Linear(4, 4)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    second = Projector(model, "1.weight", rank=2).leave(["0.weight"]).attach(optimizer)
    with pytest.raises(ConstraintError, match=r"1\.weight is constrained by another projector"):
        Projector(model, "*.weight").attach(optimizer)
    first = Projector(model).leave(second.constraints).attach(optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (first.constraints.keys(), second.constraints.keys()) == ({"0.weight"}, {"1.weight"})
    assert max(error(layer.weight) for layer in model) < 1e-6


def test_a_divider_that_is_a_method_belongs_to_the_object_that_trains():
    class Scheduled(Net):
        divider = 2.0

        def on_train_batch_start(self, *_):
            self.divider = 10.0

        def lr_divider(self, step):
            return self.divider

    model = Scheduled()
    method = ProjUNN("first.weight", lr_divider=model.lr_divider)
    run = trainer(method, log_every_n_steps=1)
    run.fit(model, loader())
    assert run.callback_metrics["weights/lr"] == pytest.approx(model.learning_rate / 10)


def test_the_divider_follows_a_schedule_and_the_resulting_rate_is_logged():
    logged = []

    class Watched(Net):
        def on_train_batch_end(self, *_):
            logged.append(float(self.trainer.callback_metrics.get("weights/lr", 0)))

    def schedule(step):
        return 2.0 if step < 6 else 4.0

    model, method = Watched(), ProjUNN("first.weight", lr_divider=schedule)
    run = trainer(method, log_every_n_steps=1)
    run.fit(model, loader())
    rates = method.projector.effective_rates() if method.projector.is_attached_to(*run.optimizers) else None
    assert rates is None  # it is detached after fit
    assert 0.05 / 2 in [pytest.approx(value) for value in logged]
    assert logged[-1] == pytest.approx(0.05 / 4)


def test_a_divider_by_schedule_divides_the_update_of_each_weight():
    weights = []
    for divider in (lambda step: 2.0, 2.0):
        torch.manual_seed(0)
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(5, 4)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Projector(model, "*.weight", lr_divider=divider, feedback=0.5).attach(optimizer)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        weights.append([layer.weight.detach() for layer in model])
    torch.testing.assert_close(*weights)
