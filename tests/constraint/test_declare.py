import copy
import pickle

import pytest
import torch
from torch import nn

from projunn_lightning import ConstraintError, orthogonal
from projunn_lightning.constraint import Constraint, declared
from projunn_lightning.functional import nearest_unitary, unitarity_error
from projunn_lightning.functional.init import INITS


class TestOrthogonal:
    def test_refuses_a_parameter_that_has_no_values_yet(self):
        with pytest.raises(ConstraintError, match=r"Linear\.weight is on the meta device and has no values yet"):
            orthogonal(nn.Linear(3, 3, device="meta"))

    def test_moves_the_weight_to_the_nearest_unitary_matrix_and_returns_the_module(self):
        layer = nn.Linear(6, 4)
        nearest = nearest_unitary(layer.weight)
        weight = layer.weight
        assert orthogonal(layer) is layer
        assert layer.weight is weight
        assert type(weight) is nn.Parameter
        torch.testing.assert_close(weight, nearest)
        assert list(layer.state_dict()) == ["weight", "bias"]

    @pytest.mark.parametrize("init", ["polar", *INITS])
    @pytest.mark.parametrize("features", [(5, 5), (3, 7), (7, 3)], ids=str)
    def test_every_init_and_shape(self, init, features):
        layer = orthogonal(nn.Linear(*features), init=init)
        assert unitarity_error(layer.weight) < 1e-6
        if init == "identity":
            assert torch.equal(layer.weight, torch.eye(*layer.weight.shape))

    def test_chunks_are_matrices_stacked_along_dim_0(self):
        rnn = orthogonal(nn.LSTM(3, 5), "weight_hh_l0", chunks=4)
        assert unitarity_error(rnn.weight_hh_l0.view(4, 5, 5)).max() < 1e-6

    def test_a_convolution_kernel_is_one_matrix(self):
        conv = orthogonal(nn.Conv2d(3, 8, 3))
        assert unitarity_error(conv.weight.flatten(1)) < 1e-6

    def test_a_channels_last_kernel_too(self):
        conv = orthogonal(nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last), init="haar")
        assert unitarity_error(conv.weight.flatten(1)) < 1e-6

    def test_other_leading_dimensions_are_a_batch(self):
        module = nn.Module()
        module.stack = nn.Parameter(torch.randn(2, 3, 4, 4, dtype=torch.complex64))
        orthogonal(module, "stack")
        assert unitarity_error(module.stack).shape == (2, 3)
        assert unitarity_error(module.stack).max() < 1e-6

    def test_the_record_survives_deepcopy_pickling_and_a_replaced_parameter(self):
        model = nn.Sequential(nn.Linear(2, 3), orthogonal(nn.Linear(3, 3), init="identity"))
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert declared(copied) == {"1.weight": Constraint()}
        model[1].weight = nn.Parameter(model[1].weight.clone())
        assert declared(model) == {"1.weight": Constraint()}

    @pytest.mark.parametrize(
        ("module", "name", "options", "message"),
        [
            (nn.Linear(3, 3), "wieght", {}, "Linear has no parameter 'wieght'; its matrices: weight"),
            (nn.Linear(3, 3), "bias", {}, r"Linear.bias has shape \(3,\); only parameters of 2 or more"),
            (nn.Linear(3, 3).half(), "weight", {}, "float16.*mixed precision"),
            (nn.Linear(3, 3).bfloat16(), "weight", {}, "bfloat16.*mixed precision"),
            (nn.LSTM(3, 5), "weight_hh_l0", {"chunks": 3}, "has 20 rows, which cannot be divided into 3 equal chunks"),
            (nn.Linear(3, 3), "weight", {"chunks": 0}, "has 3 rows, which cannot be divided into 0 equal chunks"),
            (nn.Linear(3, 3), "weight", {"init": "xavier"}, "unknown init 'xavier', expected one of polar, haar"),
            (nn.LazyLinear(3), "weight", {}, "not materialised yet"),
            (nn.ParameterDict({"weight": torch.empty(0, 3)}), "weight", {}, "has no entries"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_refuses_an_unsuitable_parameter_and_leaves_it_unchanged(self, module, name, options, message):
        before = copy.deepcopy(module)
        with pytest.raises(ConstraintError, match=message):
            orthogonal(module, name, **options)
        assert not declared(module)
        if not isinstance(module, nn.LazyLinear):
            assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before.parameters(), strict=True))

    def test_refuses_values_that_are_not_finite(self):
        layer = nn.Linear(3, 3)
        nn.init.constant_(layer.weight, float("nan"))
        with pytest.raises(ConstraintError, match=r"Linear.weight holds values that are not finite"):
            orthogonal(layer)
