import copy
import pickle

import pytest
import torch
from torch import nn

from projunn_lightning import ConstraintError, orthogonal
from projunn_lightning.constraint import Constraint, declared
from projunn_lightning.functional import nearest_unitary, unitarity_error
from projunn_lightning.functional.init import INITS

STACKED = [
    (nn.LSTM(3, 5), "weight_hh_l0", 4, (5, 5)),
    (nn.LSTM(3, 5, bidirectional=True, proj_size=2), "weight_hh_l0_reverse", 4, (5, 2)),
    (nn.GRU(3, 5), "weight_ih_l0", 3, (5, 3)),
    (nn.LSTMCell(3, 5), "weight_hh", 4, (5, 5)),
    (nn.GRUCell(3, 5), "weight_hh", 3, (5, 5)),
    (nn.MultiheadAttention(4, 2), "in_proj_weight", 3, (4, 4)),
    (nn.Conv2d(4, 6, 3, groups=2), "weight", 2, (3, 18)),
    (nn.Conv1d(5, 10, 3, groups=5), "weight", 5, (2, 3)),  # depthwise
    (nn.ConvTranspose2d(6, 4, 2, groups=2), "weight", 2, (3, 8)),
]


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
        layer = orthogonal(nn.Linear(6, 9), chunks=3, init="haar")
        assert unitarity_error(layer.weight.view(3, 3, 6)).max() < 1e-6

    @pytest.mark.parametrize("init", ["polar", *INITS])
    def test_chunks_may_have_different_numbers_of_rows_as_in_grouped_query_attention(self, init):
        layer = orthogonal(nn.Linear(8, 16), chunks=[8, 4, 4], init=init)
        query, key, value = layer.weight.split([8, 4, 4])
        for block in (query, key, value):
            assert unitarity_error(block) < 1e-6
        if init == "identity":
            assert torch.equal(key, torch.eye(4, 8))

    def test_unequal_chunks_with_a_value_that_is_not_finite_stay_as_they_are(self):
        layer = nn.Linear(4, 6)
        layer.weight.data[5, 0] = float("inf")
        before = layer.weight.clone()
        with pytest.raises(ConstraintError, match=r"Linear\.weight holds values that are not finite"):
            orthogonal(layer, chunks=[4, 2])
        assert torch.equal(layer.weight, before)

    @pytest.mark.parametrize(("module", "name", "chunks", "shape"), STACKED, ids=lambda value: type(value).__name__)
    def test_the_stacked_weights_of_torch_are_taken_apart(self, module, name, chunks, shape):
        module = orthogonal(copy.deepcopy(module), name)
        assert declared(module)[name].chunks == chunks
        assert unitarity_error(module.get_parameter(name).view(chunks, *shape)).max() < 1e-6

    def test_heads_are_matrices_of_orthonormal_rows(self):
        attention = orthogonal(nn.MultiheadAttention(8, 4), "in_proj_weight", chunks=3 * 4)
        assert unitarity_error(attention.in_proj_weight.view(12, 2, 8)).max() < 1e-6

    def test_one_chunk_is_one_tall_matrix_also_for_a_stacked_weight_of_torch(self):
        cell = orthogonal(nn.LSTMCell(3, 5), "weight_hh", chunks=1)
        assert unitarity_error(cell.weight_hh) < 1e-6

    def test_a_name_may_lead_to_a_child(self):
        model = orthogonal(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), "1.weight")
        assert declared(model) == declared(nn.Sequential(nn.Linear(3, 3), orthogonal(nn.Linear(3, 3))))

    def test_a_compiled_layer_and_a_child_of_one(self):
        layer = torch.compile(nn.Linear(3, 3), backend="eager")
        assert orthogonal(layer) is layer
        model = nn.Sequential(torch.compile(nn.Sequential(nn.Linear(3, 3)), backend="eager"))
        orthogonal(model, "0.0.weight")
        for module, name in ((layer, "_orig_mod.weight"), (model, "0._orig_mod.0.weight")):
            assert declared(module) == {name: Constraint()}  # the name in named_parameters()
            assert unitarity_error(module.get_parameter(name)) < 1e-6
        with pytest.raises(ConstraintError, match="Linear has no parameter 'wieght'; its matrices: weight"):
            orthogonal(layer, "wieght")

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
            (nn.Linear(3, 3), "weight", {"chunks": 0}, r"chunks must be the number of matrices .* found 0"),
            (nn.Linear(3, 3), "weight", {"chunks": True}, r"chunks must be the number of matrices .* found True"),
            (nn.Linear(3, 3), "weight", {"chunks": []}, r"or a list of the number of rows of each, .* found \[\]"),
            (nn.Linear(3, 3), "weight", {"chunks": [2, 2]}, r"has 3 rows, and its chunks \[2, 2\] have 4"),
            (nn.Bilinear(3, 3, 4), "weight", {"chunks": [2, 2]}, "only a 2-dimensional weight can have chunks"),
            (
                nn.Embedding(5, 3, max_norm=1.0),
                "weight",
                {},
                r"Embedding\.weight belongs .* with max_norm=1",
            ),
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
