"""The method's own products are in full precision under TF32 and autocast."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from projunn_lightning import Projector, from_parametrized, orthogonal
from projunn_lightning.functional import RETRACTIONS, nearest_unitary, retract, unitarity_error
from projunn_lightning.linalg import full_precision

aten = torch.ops.aten
FIRST_FACTOR = {  # the place of the first factor among the arguments of each product
    **dict.fromkeys((aten.mm.default, aten.bmm.default, aten.mm.out, aten.bmm.out), 0),
    **dict.fromkeys((aten.addmm.default, aten.baddbmm.default, aten.addmm.out, aten.baddbmm.out), 1),
    **dict.fromkeys((aten.addmm_.default, aten.baddbmm_.default), 1),
}


def rounded(tensor):
    """A float32 tensor with mantissas of ten bits."""
    if tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).reshape(tensor.shape)


class TF32(TorchDispatchMode):
    """What a GPU does with products of float32 where the user's switches allow TF32."""

    rounded = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        place = FIRST_FACTOR.get(func)
        if place is not None and torch.backends.cuda.matmul.fp32_precision == "tf32":
            self.rounded += 1
            args = (*args[:place], *map(rounded, args[place : place + 2]), *args[place + 2 :])
        return func(*args, **(kwargs or {}))


@pytest.fixture
def tf32():
    torch.set_float32_matmul_precision("high")
    with TF32() as mode:
        yield mode
    assert torch.get_float32_matmul_precision() == "high"  # it has been given back
    torch.set_float32_matmul_precision("highest")


def error(weight):
    """The unitarity error in double precision, without the package's own function."""
    w = weight.detach().double()
    return float(torch.linalg.matrix_norm(w.mT @ w - torch.eye(len(w), dtype=torch.float64)) / len(w) ** 0.5)


class TestTF32:
    @pytest.mark.parametrize("retraction", RETRACTIONS)
    @pytest.mark.parametrize("settings", [{"rank": 1}, {"rank": 8, "sampler": "tangent"}, {"rank": "full"}], ids=str)
    def test_training_keeps_the_tolerance_and_the_error_that_is_reported_is_true(self, tf32, retraction, settings):
        layer = orthogonal(nn.Linear(64, 64, bias=False))
        assert error(layer.weight) < 1e-6
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        projector = Projector(layer, retraction=retraction, **settings).attach(optimizer)
        for _ in range(70):
            x = torch.randn(16, 64)
            layer.zero_grad()
            (layer(x) - x.roll(1, 1)).square().mean().mul(64).backward()
            optimizer.step()
            assert error(layer.weight) < 1e-5
        assert float(projector.unitarity_errors()["weight"]) < 1e-5
        assert tf32.rounded > 100  # the products of the model itself are the user's affair

    def test_a_weight_chosen_by_pattern_and_one_of_a_parametrization(self, tf32):
        model = nn.Linear(64, 64)
        Projector(model, "weight").attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert error(model.weight) < 1e-6
        converted = from_parametrized(parametrizations.orthogonal(nn.Linear(64, 64)))
        assert error(converted.weight) < 1e-5

    def test_the_public_functions(self, tf32):
        weight = nearest_unitary(torch.randn(64, 64))
        assert error(weight) < 1e-6
        assert float(unitarity_error(weight)) < 1e-6
        assert error(retract(weight, torch.randn(64, 2), torch.randn(64, 2))) < 1e-5

    def test_without_the_protection_the_emulation_would_show_it(self, tf32):
        w = nearest_unitary(torch.randn(64, 64))
        assert float(torch.linalg.matrix_norm(w.mT @ w - torch.eye(64))) > 1e-4

    def test_the_newer_switches_are_given_back_too(self):
        backend = torch.backends.cuda.matmul
        before = backend.fp32_precision
        backend.fp32_precision = "tf32"
        try:
            with full_precision():
                assert backend.fp32_precision == "ieee"
            assert backend.fp32_precision == "tf32"
            with pytest.raises(RuntimeError, match="of the user"), full_precision():
                raise RuntimeError("of the user's own making")
            assert backend.fp32_precision == "tf32"
        finally:
            backend.fp32_precision = before


class TestAutocast:
    @pytest.fixture(autouse=True)
    def _autocast(self):
        with torch.autocast("cpu", torch.bfloat16):
            yield

    def test_errors_are_those_of_the_weight(self):
        layer = orthogonal(nn.Linear(16, 16))
        projector = Projector(layer).attach(torch.optim.SGD(layer.parameters(), 0.01))
        assert float(projector.unitarity_errors()["weight"]) < 1e-6
        assert float(unitarity_error(layer.weight.detach())) < 1e-6

    def test_a_weight_that_is_attached_again_does_not_move(self):
        layer = orthogonal(nn.Linear(16, 16))
        before = layer.weight.detach().clone()
        Projector(layer).attach(torch.optim.SGD(layer.parameters(), 0.01))
        assert torch.equal(layer.weight, before)

    def test_a_weight_that_joins_in_mid_run_is_unitary(self):
        model = nn.Sequential(orthogonal(nn.Linear(16, 16)), nn.Linear(16, 16).requires_grad_(False))
        optimizer = torch.optim.SGD(model[0].parameters(), 0.01)
        Projector(model, ["0.weight", "1.weight"], coordinates="skew").attach(optimizer)
        model[1].requires_grad_(True)
        optimizer.add_param_group({"params": list(model[1].parameters())})
        model(torch.randn(4, 16)).square().sum().backward()
        optimizer.step()
        assert error(model[0].weight) < 1e-6
        assert error(model[1].weight) < 1e-6
