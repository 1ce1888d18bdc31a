"""Weights that consist of several matrices along dim 0, of one shape or of several."""

import copy
from dataclasses import fields

import pytest
import torch
from torch import nn

from projunn_lightning import ConfigError, ConstraintError, Projector, orthogonal
from projunn_lightning.constraint import Constraint
from projunn_lightning.functional import unitarity_error
from projunn_lightning.optim import ProjUNNSettings, step
from tests.support.fits import error

BLOCKS = [8, 4, 4]  # of grouped-query attention: the rows of the queries, the keys and the values


@pytest.fixture(params=["batched", "alone"])
def _size(request, monkeypatch):
    if request.param == "alone":
        monkeypatch.setattr(step, "SMALL", 0)


def fused(count=1, **options):
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(8, 16, bias=False, **options) for _ in range(count)])


def blocks(weight):
    return weight.detach().split(BLOCKS)


def train(model, optimizer, steps=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        for parameter in model.parameters():
            x = torch.randn(parameter.shape, generator=generator)
            (parameter * x.to(parameter.dtype)).sum().backward()
        optimizer.step()


@pytest.mark.usefixtures("_size")
class TestUnequalChunks:
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("sampler", ["lsi", "tangent", "column", "svd"])
    def test_each_matrix_moves_and_stays_orthogonal(self, count, sampler):
        model = fused(count)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        with Projector(model, "*.weight", chunks=BLOCKS, sampler=sampler, rank=2, feedback=0.5).attach(optimizer):
            start = copy.deepcopy(model)
            train(model, optimizer, steps=70)  # drift is corrected after 64 steps
        for before, after in zip(start.parameters(), model.parameters(), strict=True):
            for old, new in zip(blocks(before), blocks(after), strict=True):
                assert error(new) < 1e-6
                assert (new - old).norm() > 0.1
            assert error(after) > 0.1  # it is not one tall matrix

    def test_the_update_is_that_of_separate_parameters(self):
        model, generator = fused(dtype=torch.float64), torch.Generator().manual_seed(0)
        apart = nn.ParameterList([block.clone() for block in blocks(model[0].weight)])
        optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, apart)]
        Projector(model, "*.weight", chunks=BLOCKS, rank="full").attach(optimizers[0])
        Projector(apart, "*", rank="full").attach(optimizers[1])
        for _ in range(5):
            gradient = torch.randn(16, 8, dtype=torch.float64, generator=generator)
            model[0].weight.grad = gradient
            for parameter, part in zip(apart, gradient.split(BLOCKS), strict=True):
                parameter.grad = part
            for optimizer in optimizers:
                optimizer.step()
        torch.testing.assert_close(model[0].weight.detach(), torch.cat(list(apart)).detach())

    def test_an_interrupted_step_is_undone_for_all_of_them(self):
        class Breaking(torch.optim.SGD):
            def step(self, closure=None):
                super().step(closure)
                raise KeyboardInterrupt

        model = fused()
        projector = Projector(model, "*.weight", chunks=BLOCKS).attach(Breaking(model.parameters(), lr=0.1))
        before = model[0].weight.detach().clone()
        model[0].weight.grad = torch.randn(16, 8)
        with pytest.raises(KeyboardInterrupt):
            projector._attachments[0].optimizer.step()
        projector.detach()
        assert torch.equal(model[0].weight, before)

    def test_an_update_that_is_not_finite_leaves_its_matrix_and_is_counted(self):
        model = fused()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, "*.weight", chunks=BLOCKS).attach(optimizer)
        before = model[0].weight.detach().clone()
        model[0].weight.grad = torch.randn(16, 8)
        model[0].weight.grad[3, 3] = float("nan")
        optimizer.step()
        assert torch.equal(model[0].weight[:8], before[:8])
        assert all(error(block) < 1e-6 for block in blocks(model[0].weight))
        assert projector.skipped_updates == 1

    def test_a_loaded_state_continues_with_the_same_bits(self):
        options = {"chunks": BLOCKS, "rank": 2, "sampler": "tangent", "feedback": 0.5}
        model, whole = fused(2), None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        projector = Projector(model, "*.weight", **options).attach(optimizer)
        train(model, optimizer)
        state = copy.deepcopy((model.state_dict(), projector.state_dict()))
        train(model, optimizer, seed=1)
        whole = model.state_dict()
        resumed = fused(2)
        resumed.load_state_dict(state[0])
        optimizer = torch.optim.SGD(resumed.parameters(), lr=0.1)
        Projector(resumed, "*.weight", **options).attach(optimizer).load_state_dict(state[1])
        train(resumed, optimizer, seed=1)
        assert all(torch.equal(value, whole[name]) for name, value in resumed.state_dict().items())

    def test_a_parameter_that_is_loaded_in_mid_run_is_made_orthogonal(self):
        model = orthogonal(nn.Linear(8, 16, bias=False), chunks=BLOCKS)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Projector(model).attach(optimizer)
        model.load_state_dict({"weight": torch.randn(16, 8)})
        with pytest.warns(UserWarning, match=r"weight\[(0:8|8:16)\] has unitarity error .* above the tolerance"):
            train(model, optimizer, steps=1)
        assert all(error(block) < 1e-6 for block in blocks(model.weight))


class TestNames:
    def test_errors_and_constraints_have_the_name_of_the_parameter(self):
        model = fused()
        projector = Projector(model, "*.weight", chunks=BLOCKS).attach(torch.optim.SGD(model.parameters(), lr=0.1))
        assert projector.constraints == {"0.weight": Constraint(chunks=(8, 4, 4))}
        assert list(projector.effective_rates()) == ["0.weight"]
        assert list(projector.state_dict()) == ["0.weight[0:8]", "0.weight[8:16]"]
        worst = max(float(unitarity_error(block)) for block in blocks(model[0].weight))
        torch.testing.assert_close(float(projector.unitarity_errors()["0.weight"]), worst)

    def test_the_other_projector_gets_a_whole_parameter(self):
        model = fused(2)
        projector = Projector(model, "*.weight", chunks=BLOCKS).leave(["0.weight"])
        assert list(projector.constraints) == ["1.weight"]

    def test_a_setting_that_does_not_fit_is_refused_with_the_rows(self):
        with pytest.raises(ConstraintError, match=r"square matrices, and 0\.weight\[8:16\] is 4 x 8"):
            Projector(fused(), "*.weight", chunks=BLOCKS, coordinates="skew")


class TestSettings:
    @pytest.mark.parametrize("chunks", [0, -1, True, "3", 2.0, [], [8, 0], [8, "4"], {8: 4}])
    def test_anything_but_a_number_or_a_list_of_numbers_is_refused(self, chunks):
        with pytest.raises(ConfigError, match="chunks must be the number of matrices"):
            Projector(fused(), "*.weight", chunks=chunks)

    def test_chunks_without_patterns_are_refused(self):
        with pytest.raises(ConfigError, match="chunks=3 is for the parameters that patterns choose, and there are no"):
            Projector(orthogonal(nn.Linear(3, 3)), chunks=3)

    def test_a_tied_parameter_cannot_be_taken_apart_in_two_ways(self):
        model = nn.ModuleList([orthogonal(nn.Linear(4, 8), chunks=2), nn.Linear(4, 8)])
        model[1].weight = model[0].weight
        with pytest.raises(ConstraintError, match=r"0\.weight and 1\.weight are one parameter, .* in two ways"):
            Projector(model, "1.weight")
        assert list(Projector(model, "1.weight", chunks=2).constraints) == ["0.weight"]


def test_the_representation_lists_names_shapes_matrices_and_settings():
    model = nn.ModuleDict(
        {
            "qkv": orthogonal(nn.Linear(8, 16), chunks=BLOCKS),
            "rnn": nn.LSTM(3, 4),
            "conv": nn.Conv2d(4, 4, 3, groups=4),
        }
    )
    projector = Projector(torch.compile(model, backend="eager"), ["rnn.weight_hh*", "conv.weight"], seed=7)
    *lines, settings = repr(projector).splitlines()
    assert lines == [
        "Projector of ModuleDict",
        "  qkv.weight        16 x 8         1 matrix of 8 x 8, 2 matrices of 4 x 8",
        "  rnn.weight_hh_l0  16 x 4         4 matrices of 4 x 4",
        "  conv.weight       4 x 1 x 3 x 3  4 matrices of 1 x 9",
    ]
    assert settings.startswith("settings: rank=8, ")
    assert settings.endswith(", seed=7")
    assert settings.count("=") == len(fields(ProjUNNSettings))


def test_parameters_that_a_pattern_matches_and_that_are_no_matrices_are_named_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, "*.weight")
    with pytest.warns(UserWarning, match=r"the patterns \['\*\.weight'\] also match 1\.weight: only parameters"):
        projector.attach(optimizer)
    projector.detach()
    projector.attach(optimizer)
    assert list(projector.constraints) == ["0.weight"]
