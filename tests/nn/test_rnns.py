"""What all cells share, whatever makes their recurrent matrix."""

import copy
import pickle
from typing import get_args

import pytest
import torch
from torch import nn

from projunn_lightning import Projector
from projunn_lightning.functional import modrelu, unitarity_error
from projunn_lightning.nn import MappedRNN, UnitaryRNN, make_rnn
from projunn_lightning.nn.rnns import Cell

ALL = get_args(Cell)
TORCHS_OWN = ("rnn", "gru", "lstm")
UNITARY = [cell for cell in ALL if cell not in TORCHS_OWN]
COMBINATIONS = [(cell, dtype) for cell in UNITARY for dtype in (torch.float64, torch.complex128)]
COMBINATIONS.remove(("urnn", torch.float64))
every_combination = pytest.mark.parametrize(("cell", "dtype"), COMBINATIONS, ids=str)
every_cell = pytest.mark.parametrize("cell", ALL)


def dtype_of(cell):
    return torch.complex64 if cell == "urnn" else torch.float32


def matrices(rnn):
    return [rnn.recurrent_weight(layer) for layer in range(rnn.num_layers)]


@every_cell
class TestEveryCell:
    def test_is_called_and_shaped_alike(self, cell):
        rnn = make_rnn(cell, 3, 8, num_layers=2, dtype=dtype_of(cell))
        output, state = rnn(torch.randn(5, 7, 3))
        assert output.shape == (5, 7, 8)
        for part in state if cell == "lstm" else (state,):
            assert part.shape == (2, 5, 8)
        assert torch.equal(output[:, -1], (state[0] if cell == "lstm" else state)[-1])

    def test_goes_on_from_a_given_state(self, cell):
        rnn = make_rnn(cell, 3, 8, num_layers=2, dtype=dtype_of(cell)).eval()
        input = torch.randn(5, 7, 3)
        whole, final = rnn(input)
        first, state = rnn(input[:, :4])
        second, state = rnn(input[:, 4:], state)
        torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
        torch.testing.assert_close(state, final)

    def test_has_dropout_between_layers(self, cell):
        rnn = make_rnn(cell, 3, 8, num_layers=2, dropout=0.5, dtype=dtype_of(cell))
        input = torch.randn(2, 5, 3)
        assert not torch.equal(rnn(input)[0], rnn(input)[0])
        rnn.eval()
        assert torch.equal(rnn(input)[0], rnn(input)[0])

    def test_learns(self, cell):
        """To tell the sign of the first input at the end of a sequence."""
        torch.manual_seed(1)
        rnn = make_rnn(cell, 1, 16, dtype=dtype_of(cell))
        readout = nn.Linear(16, 1)
        optimizer = torch.optim.RMSprop([*rnn.parameters(), *readout.parameters()], lr=3e-3)
        if cell == "projunn":
            Projector(rnn).attach(optimizer)
        losses = []
        for _ in range(60):
            x = torch.randn(64, 5, 1)
            loss = nn.functional.binary_cross_entropy_with_logits(readout(rnn(x)[0][:, -1].real), (x[:, 0] > 0).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@every_combination
class TestCellsWithAUnitaryMatrix:
    def test_start_and_stay_unitary(self, cell, dtype):
        """|W^H W - I| / sqrt(N) below 1e-5 after 200 steps in single precision."""
        single = torch.complex64 if dtype.is_complex else torch.float32
        rnn = make_rnn(cell, 2, 16, num_layers=2, dtype=single)
        start = [w.detach().clone() for w in matrices(rnn.eval())]
        rnn.train()
        optimizer = torch.optim.RMSprop(rnn.parameters(), lr=1e-3)
        if cell == "projunn":
            Projector(rnn).attach(optimizer)
        for _ in range(200):
            optimizer.zero_grad()
            (rnn(torch.randn(4, 5, 2))[0] - 1).abs().square().mean().backward()
            optimizer.step()
        for weight, before in zip(matrices(rnn.eval()), start, strict=True):
            assert unitarity_error(before) < 1e-6
            assert unitarity_error(weight) < 1e-5
            assert (weight - before).norm() > 0.01

    def test_share_the_recurrence(self, cell, dtype):
        rnn = make_rnn(cell, 3, 4, dtype=dtype).eval()
        nn.init.normal_(rnn.bias_l0, std=0.3)
        input, state = torch.randn(2, 6, 3, dtype=dtype), torch.randn(1, 2, 4, dtype=dtype)
        output, _ = rnn(input, state)
        (weight,), h = matrices(rnn), state[0]
        for t, x in enumerate(input.unbind(1)):
            h = modrelu(x @ rnn.weight_ih_l0.mT + h @ weight.mT, rnn.bias_l0)
            torch.testing.assert_close(output[:, t], h)

    def test_keep_the_norm_of_a_state_without_input(self, cell, dtype):
        rnn = make_rnn(cell, 3, 8, nonlinearity="identity", dtype=dtype)
        state = torch.randn(1, 2, 8, dtype=dtype)
        _, final = rnn(torch.zeros(2, 300, 3, dtype=dtype), state)
        torch.testing.assert_close(final.norm(dim=-1), state.norm(dim=-1))

    def test_pass_gradcheck(self, cell, dtype):
        rnn = make_rnn(cell, 2, 4, dtype=dtype).eval()
        nn.init.normal_(rnn.bias_l0, std=0.3)
        names = [name for name, _ in rnn.named_parameters()]
        inputs = (torch.randn(2, 3, 2, dtype=dtype), *(p.detach() for p in rnn.parameters()))

        def call(input, *parameters):
            return torch.func.functional_call(rnn, dict(zip(names, parameters, strict=True)), (input,))

        assert torch.autograd.gradcheck(call, [x.clone().requires_grad_() for x in inputs])

    def test_change_precision_and_come_back_from_a_state_dict(self, cell, dtype):
        rnn = make_rnn(cell, 3, 4, dtype=dtype).eval()
        input = torch.randn(2, 5, 3, dtype=torch.float64)
        twin = make_rnn(cell, 3, 4, dtype=dtype).eval()
        twin.load_state_dict(rnn.state_dict())
        assert torch.equal(twin(input)[0], rnn(input)[0])
        assert torch.equal(copy.deepcopy(rnn)(input)[0], rnn(input)[0])
        single = copy.deepcopy(rnn).float()(input.float())[0]
        assert single.dtype == (torch.complex64 if dtype.is_complex else torch.float32)
        torch.testing.assert_close(single.to(dtype), rnn(input)[0], atol=1e-5, rtol=1e-4)

    def test_refuse_shapes_that_do_not_fit(self, cell, dtype):
        with pytest.raises(ValueError, match="I = 3 features, found"):
            make_rnn(cell, 3, 4, dtype=dtype)(torch.zeros(2, 7, 5))


def test_all_but_torchs_parametrizations_are_pickled():
    """torch refuses to pickle its own parametrizations; a state dict carries those."""
    for cell in ("projunn", "eunn", "eunn_fft", "ornn", "urnn"):
        rnn = make_rnn(cell, 3, 4, dtype=dtype_of(cell))
        input = torch.randn(2, 5, 3)
        assert torch.equal(pickle.loads(pickle.dumps(rnn))(input)[0], rnn(input)[0])


class TestOptions:
    def test_choose_the_class(self):
        kinds = {"projunn": UnitaryRNN, "rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        for cell in ALL:
            assert type(make_rnn(cell, 2, 4, dtype=dtype_of(cell))) is kinds.get(cell, MappedRNN)

    def test_capacity_is_for_layers_reflections_and_period(self):
        assert len(make_rnn("eunn", 2, 8, capacity=3).maps[0].partners) == 3
        assert len(make_rnn("eunn", 2, 8).maps[0].partners) == 8
        assert make_rnn("ornn", 2, 8, capacity=3).maps[0].shape == (8, 3)
        assert make_rnn("dtriv", 2, 8, capacity=3).maps[0].period == 3
        assert make_rnn("dtriv", 2, 8).maps[0].period == 100
        assert make_rnn("rgd", 2, 8).maps[0].period == 1

    def test_nonlinearity_is_the_cells_own_unless_given(self):
        assert make_rnn("exprnn", 2, 4).nonlinearity == "modrelu"
        assert make_rnn("exprnn", 2, 4, nonlinearity="relu").nonlinearity == "relu"
        assert make_rnn("rnn", 2, 4).nonlinearity == "tanh"
        assert make_rnn("rnn", 2, 4, nonlinearity="relu").nonlinearity == "relu"

    @pytest.mark.parametrize(
        ("cell", "options", "message"),
        [
            ("gru2", {}, "unknown cell 'gru2', expected one of projunn, rnn"),
            ("projunn", {"capacity": 2}, "capacity is for eunn, ornn and dtriv, found 2 for projunn"),
            ("lstm", {"nonlinearity": "relu"}, "torch's lstm takes nonlinearity none, found 'relu'"),
            ("rnn", {"nonlinearity": "modrelu"}, "torch's rnn takes nonlinearity tanh or relu, found 'modrelu'"),
            ("gru", {"dtype": torch.complex64}, "torch's gru is real"),
            ("urnn", {}, "the uRNN is unitary"),
            ("eunn_fft", {"capacity": 2}, "leave out capacity, found 2"),
            ("exprnn", {"init": "haar"}, "starts from henaff, cayley or identity"),
            ("scornn", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
            ("ornn", {"capacity": 5}, "must be from 1 to hidden_size = 4, found 5"),
        ],
        ids=str,
    )
    def test_refuses(self, cell, options, message):
        with pytest.raises(ValueError, match=message):
            make_rnn(cell, 2, 4, **options)
