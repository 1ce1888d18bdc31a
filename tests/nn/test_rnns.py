"""Properties of all recurrent layers of the registry, and of a toy layer that one line registers."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from projunn_lightning import Projector
from projunn_lightning.constraint import declared
from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import modrelu, unitarity_error
from projunn_lightning.nn import RNNS, ElmanRNN, MappedRNN, RecurrentLayer, make_rnn


class Reflection(nn.Module):
    """``+-(I - 2 v v^H / |v|^2)``."""

    def __init__(self, size, *, sign, dtype, device):
        super().__init__()
        self.sign = sign
        self.v = nn.Parameter(torch.randn(size, dtype=dtype, device=device))

    def forward(self):
        v = self.v / torch.linalg.vector_norm(self.v)
        return self.sign * (torch.eye(len(v), dtype=v.dtype) - 2 * torch.outer(v, v.conj()))


class ToyRNN(MappedRNN):
    """A recurrent layer with a single reflection.

    Args:
        sizes: ``input_size, hidden_size, num_layers=1, nonlinearity="modrelu"``.
        sign: 1 or -1.
        options: see :class:`~projunn_lightning.nn.ElmanRNN`.
    """

    def __init__(self, *sizes, sign=1, **options):
        super().__init__(partial(Reflection, sign=sign), *sizes, **options)


LAYERS = RNNS | {"toy": RecurrentLayer(ToyRNN)}
UNITARY = {name: layer for name, layer in LAYERS.items() if issubclass(layer.kind, ElmanRNN)}
every_layer = pytest.mark.parametrize("name", LAYERS)
every_unitary_layer = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (n, dtype)
        for n, layer in UNITARY.items()
        for dtype in (torch.float64, torch.complex128)
        if dtype in layer.dtypes
    ],
    ids=str,
)


@pytest.fixture(autouse=True)
def _with_the_toy_layer(monkeypatch):
    monkeypatch.setitem(RNNS, "toy", LAYERS["toy"])


def matrices(rnn):
    return [rnn.recurrent_weight(layer) for layer in range(rnn.num_layers)]


def constrain(rnn, optimizer):
    """Attach a projector to a layer that declares constraints; a parametrization needs none."""
    if declared(rnn):
        Projector(rnn).attach(optimizer)


def of_lstm_or_of_others(state):
    return state if isinstance(state, tuple) else (state,)


@every_layer
class TestEveryLayer:
    def test_has_the_call_and_the_shapes_of_torchs_layers(self, name):
        rnn = make_rnn(name, 3, 8, num_layers=2)
        output, state = rnn(torch.randn(5, 7, 3))
        assert output.shape == (5, 7, 8)
        for part in of_lstm_or_of_others(state):
            assert part.shape == (2, 5, 8)
        assert torch.equal(output[:, -1], of_lstm_or_of_others(state)[0][-1])

    def test_continues_from_a_given_state(self, name):
        rnn = make_rnn(name, 3, 8, num_layers=2).eval()
        input = torch.randn(5, 7, 3)
        whole, final = rnn(input)
        first, state = rnn(input[:, :4])
        second, state = rnn(input[:, 4:], state)
        torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
        torch.testing.assert_close(state, final)

    def test_has_dropout_between_layers(self, name):
        rnn = make_rnn(name, 3, 8, num_layers=2, dropout=0.5)
        input = torch.randn(2, 5, 3)
        assert not torch.equal(rnn(input)[0], rnn(input)[0])
        rnn.eval()
        assert torch.equal(rnn(input)[0], rnn(input)[0])

    def test_learns_to_tell_the_sign_of_the_first_input_at_the_end(self, name):
        torch.manual_seed(1)
        rnn = make_rnn(name, 1, 16)
        readout = nn.Linear(16, 1)
        optimizer = torch.optim.RMSprop([*rnn.parameters(), *readout.parameters()], lr=3e-3)
        constrain(rnn, optimizer)
        losses = []
        for _ in range(60):
            x = torch.randn(64, 5, 1)
            loss = nn.functional.binary_cross_entropy_with_logits(readout(rnn(x)[0][:, -1].real), (x[:, 0] > 0).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])

    def test_is_drawn_anew_by_reset_parameters_as_it_was_made(self, name):
        rnn = make_rnn(name, 3, 8, num_layers=2)
        torch.manual_seed(5)
        rnn.reset_parameters()
        torch.manual_seed(5)
        twin = make_rnn(name, 3, 8, num_layers=2)
        assert rnn.state_dict().keys() == twin.state_dict().keys()
        for key, value in rnn.state_dict().items():
            assert torch.equal(value, twin.state_dict()[key]), key

    @pytest.mark.parametrize("where", ["device", "context"])
    def test_is_made_on_the_meta_device_and_drawn_by_to_empty_and_reset_parameters(self, name, where):
        if where == "device":
            rnn = make_rnn(name, 3, 8, num_layers=2, device="meta")
        else:
            with torch.device("meta"):
                rnn = make_rnn(name, 3, 8, num_layers=2)
        assert all(tensor.is_meta for tensor in (*rnn.parameters(), *rnn.buffers()))
        rnn.to_empty(device="cpu")
        torch.manual_seed(5)
        rnn.reset_parameters()
        torch.manual_seed(5)
        twin = make_rnn(name, 3, 8, num_layers=2)
        input = torch.randn(2, 5, 3)
        assert torch.equal(rnn(input)[0], twin(input)[0])
        assert declared(rnn) == declared(twin)

    @pytest.mark.usefixtures("double_by_default")
    def test_has_the_default_dtype(self, name):
        real = torch.float32 in LAYERS[name].dtypes
        output, _ = make_rnn(name, 3, 4)(torch.randn(2, 5, 3))
        assert output.dtype == (torch.float64 if real else torch.complex128)

    def test_may_be_bidirectional(self, name):
        rnn = make_rnn(name, 3, 8, num_layers=2, bidirectional=True)
        output, state = rnn(torch.randn(5, 7, 3))
        assert output.shape == (5, 7, 16)
        final = of_lstm_or_of_others(state)[0]
        assert final.shape == (4, 5, 8)
        assert torch.equal(output[:, -1, :8], final[2])
        assert torch.equal(output[:, 0, 8:], final[3])

    def test_takes_packed_sequences(self, name):
        rnn = make_rnn(name, 3, 8, num_layers=2, bidirectional=True).eval()
        sequences = [torch.randn(n, 3) for n in (2, 5, 4)]
        output, _ = rnn(pack_sequence(sequences, enforce_sorted=False))
        for states, sequence in zip(unpack_sequence(output), sequences, strict=True):
            torch.testing.assert_close(states, rnn(sequence)[0])

    def test_is_called_as_torchs_layers_are(self, name):
        rnn = make_rnn(name, 3, 4)
        rnn.flatten_parameters()
        state = rnn(torch.randn(2, 5, 3))[1]
        rnn(input=torch.randn(2, 5, 3), hx=state)

    def test_can_be_pickled_unless_torch_forbids_it(self, name):
        """torch refuses to pickle its own parametrizations; the state dict of such a layer can be saved."""
        rnn = make_rnn(name, 3, 4)
        if any(map(is_parametrized, rnn.modules())):
            with pytest.raises(RuntimeError, match="Serialization of parametrized modules"):
                pickle.dumps(rnn)
        else:
            input = torch.randn(2, 5, 3)
            assert torch.equal(pickle.loads(pickle.dumps(rnn))(input)[0], rnn(input)[0])

    def test_takes_the_options_that_all_layers_share(self, name):
        shared = {"bias": True, "batch_first": False, "dropout": 0.0, "dtype": LAYERS[name].dtypes[0], "device": "cpu"}
        assert shared.keys() <= set(LAYERS[name].options)
        assert make_rnn(name, 2, 4, **shared)(torch.randn(7, 5, 2))[1][0].shape[-2:] == (5, 4)

    def test_refuses_any_other_option_and_names_its_own(self, name):
        with pytest.raises(ValueError) as refused:
            make_rnn(name, 2, 4, perod=1)
        own = ", ".join(LAYERS[name].options)
        assert str(refused.value) == f"the recurrent layer {name!r} has no option 'perod'; its options are {own}"

    def test_has_the_dtypes_that_its_entry_lists(self, name):
        for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            if dtype in LAYERS[name].dtypes:
                assert make_rnn(name, 2, 4, dtype=dtype)(torch.randn(1, 3, 2, dtype=dtype))[0].dtype == dtype
            else:
                with pytest.raises(ValueError, match=rf"{name!r} cannot have the dtype {dtype}, expected one of torch"):
                    make_rnn(name, 2, 4, dtype=dtype)


@pytest.mark.parametrize("name", UNITARY)
def test_the_docstring_of_a_layer_describes_each_option_of_its_own(name):
    kind, shared = LAYERS[name].kind, RecurrentLayer(ElmanRNN).options
    assert vars(kind)["__doc__"]
    for option in LAYERS[name].options:
        assert option in shared or f"\n        {option}: " in kind.__doc__


@every_unitary_layer
class TestEveryLayerWithAUnitaryMatrix:
    def test_is_unitary_at_the_start_and_stays_so(self, name, dtype):
        """|W^H W - I| / sqrt(N) is below 1e-5 after 200 steps in single precision."""
        single = torch.complex64 if dtype.is_complex else torch.float32
        rnn = make_rnn(name, 2, 16, num_layers=2, dtype=single)
        start = [w.detach().clone() for w in matrices(rnn.eval())]
        rnn.train()
        optimizer = torch.optim.RMSprop(rnn.parameters(), lr=1e-3)
        constrain(rnn, optimizer)
        for _ in range(200):
            optimizer.zero_grad()
            (rnn(torch.randn(4, 5, 2))[0] - 1).abs().square().mean().backward()
            optimizer.step()
        for weight, before in zip(matrices(rnn.eval()), start, strict=True):
            assert unitarity_error(before) < 1e-6
            assert unitarity_error(weight) < 1e-5
            assert (weight - before).norm() > 0.01

    def test_takes_the_nonlinearity_in_the_place_where_torchs_rnn_has_it(self, name, dtype):
        assert LAYERS[name].kind(3, 4, 1, "relu", dtype=dtype).nonlinearity == "relu"

    def test_computes_a_matrix_once_for_all_blocks_of_a_packed_sequence(self, name, dtype, monkeypatch):
        rnn = make_rnn(name, 3, 4, num_layers=2, bidirectional=True, dtype=dtype)
        computed = []
        original = type(rnn).recurrent_weight
        monkeypatch.setattr(
            type(rnn), "recurrent_weight", lambda self, index: (computed.append(index), original(self, index))[1]
        )
        rnn(pack_sequence([torch.randn(n, 3) for n in (4, 2, 1)]))
        assert computed == [0, 1, 2, 3]

    def test_computes_in_half_precision_or_refuses_it(self, name, dtype):
        rnn = make_rnn(name, 3, 4, dtype=dtype).eval()
        input = torch.randn(2, 5, 3, dtype=torch.float64)
        expected = rnn(input)[0]
        if rnn.computes_in_half and not dtype.is_complex:
            torch.testing.assert_close(rnn.half()(input.half())[0].double(), expected, rtol=0.01, atol=0.01)
        else:
            with pytest.raises(ProjUNNError, match=f"{type(rnn).__name__} cannot compute in half precision"):
                rnn.half()
            assert torch.equal(rnn(input)[0], expected)

    def test_has_second_derivatives_and_transforms_of_torch_func(self, name, dtype):
        rnn = make_rnn(name, 2, 4, dtype=dtype).eval()
        nn.init.normal_(rnn.bias_l0, std=0.3)
        input = torch.randn(3, 4, 2, dtype=torch.float64)

        def energy(x):
            output, state = rnn(x)
            return rnn(x, state)[0].abs().pow(4).sum() + output.abs().pow(3).sum()

        x = input.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x), x, create_graph=True)
        torch.testing.assert_close(torch.func.grad(energy)(input), gradient)
        torch.testing.assert_close(torch.autograd.grad(energy(x), x)[0], gradient)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        expected = torch.func.grad(lambda x: torch.func.grad(energy)(x).square().sum())(input)
        torch.testing.assert_close(second, expected)
        assert expected.abs().max() > 0
        sample_gradients = torch.func.vmap(torch.func.grad(lambda x: rnn(x)[0].abs().pow(2).sum()))(input)
        whole = input.clone().requires_grad_()
        rnn(whole)[0].abs().pow(2).sum().backward()
        torch.testing.assert_close(sample_gradients, whole.grad)

    def test_is_the_recurrence_with_its_matrix(self, name, dtype):
        rnn = make_rnn(name, 3, 4, dtype=dtype).eval()
        nn.init.normal_(rnn.bias_l0, std=0.3)
        input, state = torch.randn(2, 6, 3, dtype=dtype), torch.randn(1, 2, 4, dtype=dtype)
        output, _ = rnn(input, state)
        (weight,), h = matrices(rnn), state[0]
        for t, x in enumerate(input.unbind(1)):
            h = modrelu(x @ rnn.weight_ih_l0.mT + h @ weight.mT, rnn.bias_l0)
            torch.testing.assert_close(output[:, t], h)

    def test_keeps_the_norm_of_a_state_without_input(self, name, dtype):
        rnn = make_rnn(name, 3, 8, nonlinearity="identity", dtype=dtype)
        state = torch.randn(1, 2, 8, dtype=dtype)
        _, final = rnn(torch.zeros(2, 300, 3, dtype=dtype), state)
        torch.testing.assert_close(final.norm(dim=-1), state.norm(dim=-1))

    def test_passes_gradcheck(self, name, dtype):
        rnn = make_rnn(name, 2, 4, dtype=dtype).eval()
        nn.init.normal_(rnn.bias_l0, std=0.3)
        names = [name for name, _ in rnn.named_parameters()]
        inputs = (torch.randn(2, 3, 2, dtype=dtype), *(p.detach() for p in rnn.parameters()))

        def call(input, *parameters):
            return torch.func.functional_call(rnn, dict(zip(names, parameters, strict=True)), (input,))

        assert torch.autograd.gradcheck(call, [x.clone().requires_grad_() for x in inputs])

    def test_changes_precision_and_returns_from_a_state_dict(self, name, dtype):
        rnn = make_rnn(name, 3, 4, dtype=dtype).eval()
        input = torch.randn(2, 5, 3, dtype=torch.float64)
        twin = make_rnn(name, 3, 4, dtype=dtype).eval()
        twin.load_state_dict(rnn.state_dict())
        assert torch.equal(twin(input)[0], rnn(input)[0])
        assert torch.equal(copy.deepcopy(rnn)(input)[0], rnn(input)[0])
        single = copy.deepcopy(rnn).float()(input.float())[0]
        assert single.dtype == (torch.complex64 if dtype.is_complex else torch.float32)
        torch.testing.assert_close(single.to(dtype), rnn(input)[0], atol=1e-5, rtol=1e-4)

    def test_refuses_shapes_that_do_not_fit(self, name, dtype):
        with pytest.raises(ValueError, match="I = 3 features, found"):
            make_rnn(name, 3, 4, dtype=dtype)(torch.zeros(2, 7, 5))


class TestMakeRNN:
    @every_layer
    def test_makes_the_class_of_the_entry(self, name):
        assert type(make_rnn(name, 2, 4)) is LAYERS[name].kind

    def test_hands_on_the_options_of_a_layers_own(self):
        assert len(make_rnn("eunn", 2, 8, capacity=3).maps[0].partners) == 3
        assert len(make_rnn("eunn", 2, 8).maps[0].partners) == 8
        assert make_rnn("ornn", 2, 8, reflections=3).maps[0].shape == (8, 3)
        assert make_rnn("dtriv", 2, 8, period=3).maps[0].period == 3
        assert make_rnn("dtriv", 2, 8).maps[0].period == 100
        assert make_rnn("rgd", 2, 8).maps[0].period == 1
        assert make_rnn("toy", 2, 8, sign=-1).maps[0].sign == -1

    def test_leaves_the_nonlinearity_to_the_layer_unless_it_is_given(self):
        assert make_rnn("exprnn", 2, 4).nonlinearity == "modrelu"
        assert make_rnn("exprnn", 2, 4, nonlinearity="relu").nonlinearity == "relu"
        assert make_rnn("rnn", 2, 4).nonlinearity == "tanh"
        assert make_rnn("rnn", 2, 4, nonlinearity="relu").nonlinearity == "relu"

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("gru2", {}, "unknown recurrent layer 'gru2', expected one of projunn, rnn"),
            ("projunn", {"capacity": 2}, "'projunn' has no option 'capacity'; its options are nonlinearity, init"),
            ("rgd", {"period": 2}, "'rgd' has no option 'period'; its options are init"),
            ("eunn", {"init": "haar"}, "'eunn' has no option 'init'; its options are capacity"),
            ("lstm", {"nonlinearity": "relu"}, "'lstm' has no option 'nonlinearity'; its options are bias"),
            ("rnn", {"nonlinearity": "modrelu"}, "Unknown nonlinearity 'modrelu'"),
            ("exprnn", {"init": "haar"}, "starts from henaff, cayley or identity"),
            ("scornn", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
            ("gru", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
            ("gru", {"num_layers": 0}, "num_layers must be 1 or more, found 0"),
            ("ornn", {"reflections": 5}, "reflections must be from 1 to hidden_size = 4, found 5"),
            ("eunn_fft", {"hidden_size": 6}, "power of 2, found 6"),
        ],
        ids=str,
    )
    def test_refuses_what_cannot_work(self, name, options, message):
        with pytest.raises(ValueError, match=message):
            make_rnn(name, **{"input_size": 2, "hidden_size": 4} | options)
