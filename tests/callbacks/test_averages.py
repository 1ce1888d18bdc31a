"""Averages of weights: wherever they are used, the constrained weights among them are unitary."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from projunn_lightning import ConstraintError, Projector, ProjUNN, orthogonal
from projunn_lightning.functional import nearest_unitary
from tests.support.fits import Validated, error, loader, trainer

PATTERNS = ["first.weight", "second.weight"]
AVERAGES = {"mean": WeightAveraging, "ema": lambda: EMAWeightAveraging(decay=0.8)}


class Watch(Callback):
    """Keeps the weights with which the model is validated, and Lightning's average after each step."""

    def __init__(self, averaging):
        self.averaging = averaging
        self.validated = []
        self.means = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        average = self.averaging._average_model.module
        self.means.append({name: mean.detach().clone() for name, mean in average.named_parameters()})

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validated.append(copy.deepcopy(pl_module.state_dict()))


def fit(averaging, *callbacks, method=None, ckpt_path=None, **options):
    torch.manual_seed(0)
    model = Validated(lr=0.3)
    run = trainer(averaging, *callbacks, *(method or [ProjUNN(PATTERNS)]), **{"max_epochs": 3, **options})
    run.fit(model, loader(), loader(2), ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else False)
    return model, run


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("split", [False, True], ids=["one callback", "two callbacks"])
def test_the_model_is_validated_and_left_with_the_nearest_unitary_matrices(kind, split):
    averaging = AVERAGES[kind]()
    watch = Watch(averaging)
    model, _ = fit(averaging, watch, method=[ProjUNN(name) for name in PATTERNS] if split else None)
    means = watch.means[-1]
    for name in PATTERNS:
        assert max(error(state[name]) for state in watch.validated) < 1e-6
        assert error(means[name]) > 1e-3
        torch.testing.assert_close(model.get_parameter(name).detach(), nearest_unitary(means[name]))
    torch.testing.assert_close(model.head.weight.detach(), means["head.weight"])


def test_the_average_does_not_depend_on_how_often_it_is_used(tmp_path):
    seen = []
    for interval in (1, 6):
        averaging = AVERAGES["ema"]()
        watch = Watch(averaging)
        keep = ModelCheckpoint(tmp_path / str(interval), every_n_train_steps=interval, save_top_k=-1)
        fit(averaging, watch, keep, val_check_interval=interval, enable_checkpointing=True)
        seen.append(watch.means)
    for ours, theirs in zip(*seen, strict=True):
        assert all(map(torch.equal, ours.values(), theirs.values()))


def test_the_training_has_the_bits_of_a_training_without_an_average(tmp_path):
    keep = ModelCheckpoint(tmp_path, save_top_k=-1)
    fit(AVERAGES["ema"](), keep, enable_checkpointing=True)
    alone, _ = fit(Callback())
    saved = torch.load(max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns), weights_only=False)
    for name, value in alone.state_dict().items():
        assert torch.equal(saved["current_model_state"][name], value)


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_a_checkpoint_has_unitary_weights_and_a_resumed_run_continues_with_the_average(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, _ = fit(AVERAGES["ema"](), keep, enable_checkpointing=True)
    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=False)["state_dict"]
    assert max(error(saved[name]) for name in PATTERNS) < 1e-6
    options = {"ckpt_path": tmp_path / "epoch=1.ckpt", "enable_checkpointing": True}
    resumed, _ = fit(AVERAGES["ema"](), ModelCheckpoint(tmp_path / "resumed", save_top_k=-1), **options)
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))
    model = Validated()
    model.load_state_dict(saved)
    trainer(AVERAGES["ema"](), ProjUNN(PATTERNS)).validate(model, loader(2), verbose=False)


def test_tied_weights_are_saved_tied(tmp_path):
    class Tied(Validated):
        def __init__(self):
            super().__init__(lr=0.3)
            self.second.weight = self.first.weight

    run = trainer(AVERAGES["ema"](), ProjUNN("first.weight"))
    run.fit(Tied(), loader(), loader(2))
    run.save_checkpoint(tmp_path / "tied.ckpt")
    saved = torch.load(tmp_path / "tied.ckpt", weights_only=False)["state_dict"]
    assert error(saved["second.weight"]) < 1e-6
    assert torch.equal(saved["first.weight"], saved["second.weight"])


def test_weights_of_matrices_of_several_heights():
    class Fused(Validated):
        def __init__(self):
            super().__init__(lr=0.3)
            orthogonal(self.second, chunks=[4, 2])

    averaging = AVERAGES["ema"]()
    watch = Watch(averaging)
    model = Fused()
    trainer(averaging, watch, ProjUNN()).fit(model, loader(), loader(2))
    for weight in [state["second.weight"] for state in watch.validated] + [model.second.weight]:
        assert max(map(error, weight.split([4, 2]))) < 1e-6


class Own(Callback):
    """Validates with an average of its own, as many programs do."""

    def __init__(self, method=None):
        self.method = method
        self.average = None

    def on_fit_start(self, trainer, pl_module):
        self.average = {name: each.detach().clone() for name, each in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, each in pl_module.named_parameters():
            self.average[name].lerp_(each.detach(), 0.2)

    def on_validation_start(self, trainer, pl_module):
        self.kept = copy.deepcopy(pl_module.state_dict())
        used = copy.deepcopy(self.average)
        if self.method is not None:
            self.method.projector.project_(used)
        pl_module.load_state_dict(used)

    def on_validation_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.kept)


class TestByHand:
    def test_a_callback_that_validates_with_its_own_average_is_reported_once(self):
        with pytest.warns(UserWarning, match="callback that swaps averages in") as seen:
            fit(Own())
        texts = [str(each.message) for each in seen if "swaps averages" in str(each.message)]
        assert sorted(text.split()[0] for text in texts) == PATTERNS

    def test_or_projects_it(self):
        method = ProjUNN(PATTERNS)
        watch = Watch(None)
        watch.on_train_batch_end = lambda *args: None
        fit(Own(method), watch, method=[method])
        assert max(error(state[name]) for state in watch.validated for name in PATTERNS) < 1e-6

    def test_an_average_is_projected_where_it_is_used(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        projector = Projector(torch.compile(model, backend="eager"), "1.weight").attach(optimizer)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
        for _ in range(9):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            ema.update_parameters(model)
        used = copy.deepcopy(ema.module)
        projector.project_(used.state_dict())
        assert error(ema.module[1].weight) > 1e-5  # the tolerance
        torch.testing.assert_close(used[1].weight.detach(), nearest_unitary(ema.module[1].weight.detach()))
        assert torch.equal(used[0].weight, ema.module[0].weight)

    def test_an_average_without_a_constrained_weight_is_refused(self):
        projector = Projector(nn.Linear(3, 3), "weight")
        with pytest.raises(ConstraintError, match="weight is constrained and not among the given weights: bias"):
            projector.project_({"bias": torch.zeros(3)})
