import copy
import pickle
import warnings

import geotorch
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from projunn_lightning import ConstraintError, Projector, from_parametrized, orthogonal
from projunn_lightning.constraint import Constraint, declared
from projunn_lightning.functional import unitarity_error

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # geoopt 0.5 on torch 2.13: torch.jit.script
    import geoopt


def by_torch(layer, orthogonal_map=None):
    return parametrizations.orthogonal(layer, orthogonal_map=orthogonal_map)


def by_cayley(layer):
    return by_torch(layer, "cayley")


def by_geotorch(layer):
    geotorch.orthogonal(layer, "weight")
    return layer


def by_grassmannian(layer):
    geotorch.grassmannian(layer, "weight")
    return layer


def by_geoopt(layer):
    manifold = geoopt.Stiefel()
    layer.weight = geoopt.ManifoldParameter(manifold.projx(layer.weight.data), manifold=manifold)
    return layer


def trained(model, *, projected=False, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if projected:
        Projector(model).attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        width = next(module.in_features for module in model.modules() if isinstance(module, nn.Linear))
        model(torch.randn(8, width)).square().mean().backward()
        optimizer.step()
    return model


SHAPES = {"square": (6, 6), "tall": (4, 7), "wide": (7, 4)}  # (in, out)
SOURCES = [(by, shape) for by in (by_torch, by_cayley, by_geotorch, by_grassmannian) for shape in SHAPES]
SOURCES += [(by_geoopt, "square"), (by_geoopt, "tall")]  # geoopt has no wide matrices on a Stiefel manifold
SOURCES = [pytest.param(by, SHAPES[shape], id=f"{by.__name__}-{shape}") for by, shape in SOURCES]


class TestWhatStays:
    @pytest.mark.parametrize(("by", "features"), SOURCES)
    def test_outputs_stay_and_training_keeps_the_weight_orthogonal(self, by, features):
        model = nn.Sequential(by(nn.Linear(*features)), nn.Tanh(), nn.Linear(features[1], 2))
        if by is not by_geoopt:  # a torch optimizer would move its weight off the manifold
            trained(model)  # so that the weight is not where the parametrization starts
        input = torch.randn(5, features[0])
        before = model(input).detach()
        assert from_parametrized(model) is model
        torch.testing.assert_close(model(input), before, atol=1e-6, rtol=1e-6)
        assert type(model[0]) is nn.Linear
        assert type(model[0].weight) is nn.Parameter
        assert sorted(model.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
        assert declared(model) == {"0.weight": Constraint()}
        start = model[0].weight.detach().clone()
        trained(model, projected=True, steps=20)
        assert unitarity_error(model[0].weight) < 1e-5
        assert (model[0].weight - start).norm() > 1e-3

    @given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([torch.float32, torch.float64]), st.booleans())
    def test_weights_of_any_shape_and_dtype_stay_and_so_does_requires_grad(self, n, p, dtype, trains):
        layer = by_torch(nn.Linear(p, n, dtype=dtype))
        layer.parametrizations.weight.original.requires_grad_(trains)
        value = layer.weight.detach().clone()
        weight = from_parametrized(layer).weight
        assert (weight.dtype, weight.requires_grad, weight.is_contiguous()) == (dtype, trains, True)
        assert weight.untyped_storage().nbytes() == n * p * dtype.itemsize
        torch.testing.assert_close(weight.detach(), value, atol=1e-6, rtol=0)

    def test_a_unitary_matrix_stays_complex(self):
        layer = by_torch(nn.Linear(4, 4, dtype=torch.complex64))
        value = layer.weight.detach().clone()
        torch.testing.assert_close(from_parametrized(layer).weight.detach(), value, atol=1e-6, rtol=0)

    def test_a_batch_of_matrices_too(self):
        module = nn.ParameterDict({"stack": torch.randn(3, 4, 4)})
        parametrizations.orthogonal(module, "stack")
        assert unitarity_error(from_parametrized(module)["stack"]).shape == (3,)

    def test_the_optimizer_s_object_is_kept_and_its_gradient_is_not(self):
        model = trained(by_torch(nn.Linear(4, 4)))
        original = model.parametrizations.weight.original
        from_parametrized(model)
        assert model.weight is original
        assert model.weight.grad is None

    def test_copies_of_a_parametrized_layer_are_converted_one_by_one(self):
        layer = by_torch(nn.Linear(4, 4))
        first, second = (copy.deepcopy(layer) for _ in range(2))  # nn.TransformerEncoder copies layers like this
        from_parametrized(first)
        assert type(first) is nn.Linear
        torch.testing.assert_close(second.weight, layer.weight)
        from_parametrized(nn.Sequential(second, layer))
        torch.testing.assert_close(second.weight, first.weight)

    def test_weight_norm_stays_untouched_on_another_weight_and_on_another_parameter_of_the_same_module(self):
        cell = nn.RNNCell(3, 4)
        parametrizations.weight_norm(cell, "weight_ih")
        parametrizations.orthogonal(cell, "weight_hh")
        normed = nn.Linear(4, 4)
        nn.init.orthogonal_(normed.weight)  # its values are orthogonal, but its norms are to be learned
        parametrizations.weight_norm(normed)
        model = nn.ModuleList([cell, normed])
        from_parametrized(model)
        assert declared(model) == {"0.weight_hh": Constraint()}
        assert parametrize.is_parametrized(cell, "weight_ih")
        assert parametrize.is_parametrized(normed, "weight")
        assert cell(torch.randn(2, 3), torch.randn(2, 4)).isfinite().all()

    def test_tied_parameters_of_geoopt_stay_tied(self):
        first, second = by_geoopt(nn.Linear(4, 4)), nn.Linear(4, 4)
        second.weight = first.weight
        from_parametrized(nn.Sequential(first, second))
        assert second.weight is first.weight
        assert type(first.weight) is nn.Parameter

    def test_a_converted_rnn_computes_with_the_weight_that_it_showed_before(self):
        rnn, cell = nn.RNN(3, 4, batch_first=True), nn.RNNCell(3, 4)
        parametrizations.orthogonal(rnn, "weight_hh_l0")  # torch's nn.RNN does not use the parametrized weight
        cell.load_state_dict({name: getattr(rnn, f"{name}_l0").detach() for name in cell.state_dict()})
        from_parametrized(rnn)
        x = torch.randn(2, 2, 3)
        torch.testing.assert_close(rnn(x)[0][:, 1], cell(x[:, 1], cell(x[:, 0])))

    def test_a_checkpoint_is_converted_through_the_parametrized_model(self, tmp_path):
        old = trained(nn.Sequential(by_torch(nn.Linear(4, 4)), nn.Linear(4, 2)))
        torch.save(old.state_dict(), tmp_path / "old.pt")

        moving = nn.Sequential(by_torch(nn.Linear(4, 4)), nn.Linear(4, 2))
        moving.load_state_dict(torch.load(tmp_path / "old.pt"))
        torch.save(from_parametrized(moving).state_dict(), tmp_path / "new.pt")

        new = nn.Sequential(orthogonal(nn.Linear(4, 4)), nn.Linear(4, 2))
        new.load_state_dict(torch.load(tmp_path / "new.pt"))
        input = torch.randn(3, 4)
        torch.testing.assert_close(new(input), old(input), atol=1e-6, rtol=1e-6)

    def test_the_converted_module_can_be_pickled_and_copied(self):
        layer = from_parametrized(by_torch(nn.Linear(4, 4)))
        for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
            assert torch.equal(other.weight, layer.weight)
            assert declared(other) == {"weight": Constraint()}


class TestCompiled:
    @pytest.mark.parametrize("by", [by_torch, by_geotorch, by_geoopt])
    @pytest.mark.parametrize("how", ["the layer", "the layer in place", "a child"])
    def test_a_compiled_layer_is_converted_and_computes_as_before(self, by, how):
        model = by(nn.Linear(4, 4))
        if how == "the layer in place":
            model.compile(backend="eager")
        else:
            model = torch.compile(model, backend="eager")
        if how == "a child":
            model = nn.Sequential(model)
        input = torch.randn(2, 4)
        before = model(input).detach()
        assert from_parametrized(model) is model
        torch.testing.assert_close(model(input), before)
        (name,) = declared(model)
        assert sorted(dict(model.named_parameters())) == [name.replace("weight", "bias"), name]
        assert unitarity_error(model.get_parameter(name)) < 1e-5
        model.get_parameter(name).data.zero_()  # the compiled code reads the new weight
        torch.testing.assert_close(model(input), model.get_parameter(name.replace("weight", "bias")).expand(2, 4))

    def test_one_that_cannot_be_converted_is_unchanged_and_named_without_what_compiling_adds(self):
        model = torch.compile(nn.ModuleDict({"last": orthogonal_then_normed()}), backend="eager")
        keys = list(model.state_dict())
        with pytest.raises(ConstraintError, match=r"^last\.weight has several parametrizations"):
            from_parametrized(model)
        assert list(model.state_dict()) == keys


@pytest.mark.parametrize("by", [parametrizations.orthogonal, geotorch.orthogonal])
def test_a_stacked_weight_that_was_one_matrix_stays_one_matrix(by):
    cell = nn.LSTMCell(3, 4)
    by(cell, "weight_hh")
    assert declared(from_parametrized(cell)) == {"weight_hh": Constraint(chunks=1)}


def orthogonal_then_normed():
    layer = by_torch(nn.Linear(4, 4))
    return parametrizations.spectral_norm(layer)


def orthogonal_kernels():
    return by_torch(nn.Conv2d(2, 4, 3))


def not_finite():
    layer = by_torch(nn.Linear(4, 4))
    layer.parametrizations.weight.original.data.fill_(float("nan"))
    return layer


def off_the_manifold():
    layer = by_geoopt(nn.Linear(4, 4))
    layer.weight.data.mul_(2)
    return layer


def a_buffer():
    module = nn.Linear(4, 4)
    module.register_buffer("turned", torch.eye(4))
    return parametrizations.orthogonal(module, "turned")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (orthogonal_then_normed, r"last\.weight has several parametrizations \(_Orthogonal, _SpectralNorm\)"),
            (orthogonal_kernels, r"last\.weight has unitarity error .*, expected below 1e-04; the kernel of a convol"),
            (not_finite, r"last\.weight has unitarity error nan"),
            (off_the_manifold, r"last\.weight has unitarity error 3\.0e\+00, expected below 1e-04\. To start from"),
            (a_buffer, r"last\.turned is a parametrized buffer"),
            (lambda: by_torch(nn.Linear(4, 4)).half(), r"last\.weight is torch\.float16.*mixed precision"),
        ],
    )
    def test_one_weight_that_cannot_be_converted_leaves_all_weights_unchanged(self, make, message):
        model = nn.ModuleDict({"good": by_torch(nn.Linear(4, 4)), "manifold": by_geoopt(nn.Linear(4, 4))})
        model["last"] = make()
        objects = dict(model.named_parameters())
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConstraintError, match=message):
            from_parametrized(model)
        assert not declared(model)
        assert all(now is objects[name] for name, now in model.named_parameters())
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0, equal_nan=True)

    def test_a_module_without_any_orthogonal_weight(self):
        model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)))
        with pytest.raises(ConstraintError, match=r"Sequential has no orthogonal weight.*_WeightNorm on 0\.weight"):
            from_parametrized(model)

    def test_the_projector_names_from_parametrized_as_the_remedy(self):
        with pytest.raises(ConstraintError, match="from_parametrized"):
            Projector(by_torch(nn.Linear(3, 3)), "weight")
