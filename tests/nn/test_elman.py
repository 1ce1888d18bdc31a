"""The Elman recurrence, tested with the layer that holds its recurrent matrix as a weight."""

import pytest
import torch
from torch import nn

from projunn_lightning.errors import ProjUNNError
from projunn_lightning.functional import modrelu
from projunn_lightning.nn import UnitaryRNN

NONLINEARITIES = ["modrelu", "relu", "tanh", "identity"]
DTYPES = [torch.float64, torch.complex128]
every_nonlinearity = pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def written_out(rnn, input, state):
    """The recurrence, computed step by step and layer by layer, for an input (T, B, I)."""
    functions = {
        "modrelu": modrelu,
        "relu": lambda z, b: split(torch.relu, z + b),
        "tanh": lambda z, b: split(torch.tanh, z + b),
        "identity": lambda z, b: z + b,
    }
    finals, states = [], input.to(state.dtype)
    for layer in range(rnn.num_layers):
        w, v, b = (getattr(rnn, f"{name}_l{layer}") for name in ("weight_hh", "weight_ih", "bias"))
        h, outputs = state[layer], []
        for x in states:
            h = functions[rnn.nonlinearity]((v @ x.mT + w @ h.mT).mT, b)
            outputs.append(h)
        states = torch.stack(outputs)
        finals.append(h)
    return states, torch.stack(finals)


def split(function, z):
    return torch.complex(function(z.real), function(z.imag)) if z.is_complex() else function(z)


def randomised(rnn):
    for name, parameter in rnn.named_parameters():
        if name.startswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return rnn


@every_nonlinearity
@every_dtype
@pytest.mark.parametrize("num_layers", [1, 3])
def test_is_the_recurrence_written_out(nonlinearity, dtype, num_layers):
    rnn = randomised(UnitaryRNN(3, 5, num_layers, nonlinearity=nonlinearity, batch_first=False, dtype=dtype))
    input, state = torch.randn(7, 2, 3, dtype=torch.float64), torch.randn(num_layers, 2, 5, dtype=dtype)
    torch.testing.assert_close(rnn(input, state), written_out(rnn, input, state))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("unbatched", [True, False])
@pytest.mark.parametrize("given_state", [True, False])
def test_has_the_call_and_the_values_of_torchs_rnn(nonlinearity, batch_first, unbatched, given_state):
    ours = randomised(UnitaryRNN(3, 5, 2, nonlinearity=nonlinearity, batch_first=batch_first))
    torchs = nn.RNN(3, 5, 2, nonlinearity=nonlinearity, batch_first=batch_first)
    for layer in range(2):
        for name in ("weight_ih", "weight_hh"):
            getattr(torchs, f"{name}_l{layer}").data.copy_(getattr(ours, f"{name}_l{layer}"))
        getattr(torchs, f"bias_ih_l{layer}").data.copy_(getattr(ours, f"bias_l{layer}"))
        getattr(torchs, f"bias_hh_l{layer}").data.zero_()
    input = torch.randn(7, 3) if unbatched else torch.randn(7, 4, 3)
    batch = () if unbatched else (7 if batch_first else 4,)
    state = torch.randn(2, *batch, 5) if given_state else None
    torch.testing.assert_close(ours(input, state), torchs(input, state))


@every_dtype
@pytest.mark.parametrize(("init", "variance"), [("xavier", 2 / (4 + 600)), ("kaiming", 2 / 4)])
def test_draws_the_input_weights_with_the_variance_of_their_initialisation(dtype, init, variance):
    def measured(weight):
        return float(weight.detach().abs().square().mean())

    torch.manual_seed(0)
    rnn = UnitaryRNN(4, 600, input_init=init, dtype=dtype)
    for _ in range(2):
        assert measured(rnn.weight_ih_l0) == pytest.approx(variance, rel=0.1)
        rnn.reset_parameters()
    upper = UnitaryRNN(4, 50, 2, input_init=init, bidirectional=True, dtype=dtype).weight_ih_l1
    assert measured(upper) == pytest.approx(2 / 150 if init == "xavier" else 2 / 100, rel=0.1)


@every_dtype
def test_keeps_the_norm_of_a_state_without_input(dtype):
    rnn = UnitaryRNN(3, 6, nonlinearity="identity", dtype=dtype)
    state = torch.randn(1, 2, 6, dtype=dtype)
    _, final = rnn(torch.zeros(2, 500, 3, dtype=dtype), state)
    torch.testing.assert_close(final.norm(dim=-1), state.norm(dim=-1))


@every_nonlinearity
@every_dtype
def test_passes_gradcheck(nonlinearity, dtype):
    rnn = randomised(UnitaryRNN(2, 3, 2, nonlinearity=nonlinearity, dtype=dtype))
    names = [name for name, _ in rnn.named_parameters()]
    inputs = (torch.randn(2, 3, 2, dtype=dtype), torch.randn(2, 2, 3, dtype=dtype), *rnn.parameters())

    def call(input, state, *parameters):
        return torch.func.functional_call(rnn, dict(zip(names, parameters, strict=True)), (input, state))

    assert torch.autograd.gradcheck(call, [x.detach().requires_grad_() for x in inputs])


def test_multiplies_the_inputs_of_a_whole_sequence_at_once():
    layer, input = UnitaryRNN(3, 5, num_layers=2), torch.randn(4, 50, 3)
    with torch.profiler.profile(record_shapes=True) as profile:
        layer(input)
    products = [event.input_shapes[:2] for event in profile.events() if event.name == "aten::mm"]
    assert products == [[[200, 3], [3, 5]], [[200, 5], [5, 5]]]


@every_dtype
def test_dropout_acts_between_layers_while_training(dtype):
    rnn = UnitaryRNN(3, 20, num_layers=2, dropout=0.5, nonlinearity="identity", dtype=dtype)
    input = torch.randn(2, 5, 3, dtype=dtype)
    assert not torch.equal(rnn(input)[0], rnn(input)[0])
    rnn.eval()
    assert torch.equal(rnn(input)[0], rnn(input)[0])


def test_double_converts_complex_parameters():
    rnn = UnitaryRNN(3, 5, dtype=torch.complex64).double()
    assert rnn.weight_hh_l0.dtype == rnn.weight_ih_l0.dtype == torch.complex128
    assert rnn.bias_l0.dtype == torch.float64
    assert rnn(torch.randn(2, 4, 3, dtype=torch.float64))[0].dtype == torch.complex128
    assert rnn.float().weight_hh_l0.dtype == torch.complex64


def test_repr_shows_sizes_and_options():
    assert repr(UnitaryRNN(3, 5)) == (
        "UnitaryRNN(3, 5, num_layers=1, nonlinearity='modrelu', batch_first=True, bidirectional=False, "
        "dtype=torch.float32)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be 1 or more, found 0"),
        ({"num_layers": 0}, "num_layers must be 1 or more, found 0"),
        ({"input_init": "henaff"}, "unknown input_init 'henaff', expected one of xavier, kaiming"),
        ({"nonlinearity": "gelu"}, "unknown nonlinearity 'gelu', expected one of modrelu, relu, tanh, identity"),
        ({"bias": False}, "modReLU without its bias is the identity"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1\.0"),
        ({"dtype": torch.bfloat16}, "dtype must be float32, .* found torch.bfloat16: .* in half precision"),
    ],
    ids=str,
)
def test_refuses_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        UnitaryRNN(**{"input_size": 3, "hidden_size": 5, **options})


@pytest.mark.parametrize(
    ("input", "state", "message"),
    [
        (torch.zeros(2, 7, 4), None, r"I = 3 features, found \(2, 7, 4\)"),
        (torch.zeros(3), None, r"input must be \(B, T, I\) or \(T, I\)"),
        (torch.zeros(2, 0, 3), None, "at least one time step"),
        (torch.zeros(2, 7, 3), torch.zeros(1, 7, 5), r"state must have shape \(1, 2, 5\), found \(1, 7, 5\)"),
        (torch.zeros(7, 3), torch.zeros(1, 1, 5), r"state must have shape \(1, 5\)"),
    ],
    ids=str,
)
def test_refuses_shapes_that_do_not_fit(input, state, message):
    with pytest.raises(ValueError, match=message):
        UnitaryRNN(3, 5)(input, state)


def test_refuses_complex_numbers_in_a_real_module():
    rnn = UnitaryRNN(3, 5)
    for args in ((torch.zeros(2, 7, 3) + 0j,), (torch.zeros(2, 7, 3), torch.zeros(1, 2, 5) + 0j)):
        with pytest.raises(ValueError, match="of a real UnitaryRNN must be real; give it a complex dtype"):
            rnn(*args)


def test_refuses_an_input_that_is_no_tensor():
    with pytest.raises(ProjUNNError, match="UnitaryRNN takes a tensor or a packed sequence, found list"):
        UnitaryRNN(3, 5)([[1.0, 2.0, 3.0]])


class TestIsATorchRNN:
    """The same calls give the same values."""

    @pytest.fixture(params=[False, True], ids=["one direction", "bidirectional"])
    def twins(self, request):
        ours = randomised(UnitaryRNN(3, 5, 2, "tanh", bidirectional=request.param))
        torchs = nn.RNN(3, 5, 2, "tanh", bidirectional=request.param, batch_first=True)
        for name, weight in torchs.named_parameters():
            weight.data.copy_(torch.zeros(5) if "bias_hh" in name else getattr(ours, name.replace("bias_ih", "bias")))
        return ours, torchs

    @pytest.mark.parametrize("shape", [(4, 7, 3), (7, 3)], ids=["batch", "one sequence"])
    def test_for_tensors(self, twins, shape):
        ours, torchs = twins
        input, hx = torch.randn(shape), torch.randn(4 if ours.bidirectional else 2, *shape[:-2], 5)
        torch.testing.assert_close(ours(input), torchs(input))
        torch.testing.assert_close(ours(input, hx=hx), torchs(input, hx=hx))

    @pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 4], [3, 3, 3], [1]], ids=str)
    def test_for_packed_sequences(self, twins, lengths):
        ours, torchs = twins
        packed = nn.utils.rnn.pack_sequence([torch.randn(n, 3) for n in lengths], enforce_sorted=False)
        hx = torch.randn(4 if ours.bidirectional else 2, len(lengths), 5)
        for state in (None, hx):
            found, expected = ours(packed, state), torchs(packed, state)
            assert type(found[0]) is type(packed)
            torch.testing.assert_close(found, expected)

    def test_with_gradients_of_packed_sequences(self, twins):
        sequences = [torch.randn(n, 3, requires_grad=True) for n in (2, 5, 1, 4)]
        weights = [name for name, _ in twins[0].named_parameters()]
        results = []
        for rnn in twins:
            output, final = rnn(nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False))
            own = weights if rnn is twins[0] else [name.replace("bias", "bias_ih") for name in weights]
            wanted = [*sequences, *map(rnn.get_parameter, own)]
            results.append(torch.autograd.grad(output.data.square().sum() + final.pow(3).sum(), wanted))
        torch.testing.assert_close(*results)

    def test_where_a_batch_is_sorted(self, twins):
        ours, torchs = twins
        packed = nn.utils.rnn.pack_sequence([torch.randn(n, 3) for n in (5, 3, 1)])
        assert packed.sorted_indices is None
        torch.testing.assert_close(ours(packed), torchs(packed))

    def test_with_parameters_of_the_same_shapes(self, twins):
        ours, torchs = ({name: w.shape for name, w in rnn.named_parameters() if "bias" not in name} for rnn in twins)
        assert ours == torchs

    def test_refuses_packed_sequences_that_do_not_fit(self):
        packed = nn.utils.rnn.pack_sequence([torch.zeros(2, 4), torch.zeros(1, 4)])
        with pytest.raises(ProjUNNError, match=r"\(\*, I\) in a packed sequence with I = 3 features, found \(3, 4\)"):
            UnitaryRNN(3, 5)(packed)
        with pytest.raises(ProjUNNError, match=r"state must have shape \(1, 2, 5\), found \(1, 3, 5\)"):
            UnitaryRNN(4, 5)(packed, torch.zeros(1, 3, 5))
        with pytest.raises(ProjUNNError, match="of a real UnitaryRNN must be real"):
            UnitaryRNN(4, 5)(nn.utils.rnn.pack_sequence([torch.zeros(2, 4) + 0j]))


def test_complex_packed_sequences_have_the_states_of_each_sequence_alone():
    rnn = randomised(UnitaryRNN(3, 5, 2, bidirectional=True, dtype=torch.complex128))
    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 4, 3)]
    packed, final = rnn(nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False))
    for number, (sequence, states) in enumerate(zip(sequences, nn.utils.rnn.unpack_sequence(packed), strict=True)):
        torch.testing.assert_close((states, final[:, number]), rnn(sequence))


def test_dropout_acts_on_packed_sequences():
    rnn = UnitaryRNN(3, 20, num_layers=2, dropout=0.5)
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])
    assert not torch.equal(rnn(packed)[0].data, rnn(packed)[0].data)


class TestConversions:
    def test_keep_the_imaginary_parts(self):
        """torch drops them in ``to(torch.float64)``."""
        rnn = UnitaryRNN(3, 5, dtype=torch.complex64)
        weight = rnn.weight_hh_l0.detach().clone()
        rnn.to(torch.float64)
        assert torch.equal(rnn.weight_hh_l0.detach(), weight.to(torch.complex128))
        assert rnn.bias_l0.dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_a_real_layer_computes_in_half_precision(self, dtype):
        for nonlinearity in NONLINEARITIES:
            rnn = randomised(UnitaryRNN(3, 8, 2, nonlinearity))
            input = torch.randn(2, 6, 3)
            expected = rnn(input)
            found = rnn.to(dtype)(input.to(dtype))
            assert found[0].dtype == found[1].dtype == dtype
            torch.testing.assert_close([x.float() for x in found], list(expected), rtol=0.05, atol=0.1)

    @pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
    @pytest.mark.parametrize(
        ("dtype", "new", "message"),
        [
            (
                torch.complex64,
                torch.float16,
                "a complex UnitaryRNN cannot compute in half precision, found torch.float16",
            ),
            (torch.complex64, torch.bfloat16, "cannot compute in half precision, found torch.bfloat16"),
            (torch.complex64, torch.complex128, r"its real parameters would become complex: float\(\) and double\(\)"),
            (torch.float32, torch.complex64, "a complex layer is made by the option dtype"),
        ],
        ids=str,
    )
    def test_that_cannot_work_are_refused_and_change_nothing(self, dtype, new, message):
        rnn = UnitaryRNN(3, 5, dtype=dtype)
        before = {name: (p.dtype, p.detach().clone()) for name, p in rnn.named_parameters()}
        with pytest.raises(ProjUNNError, match=message):
            rnn.to(new)
        for name, parameter in rnn.named_parameters():
            assert parameter.dtype == before[name][0]
            assert torch.equal(parameter, before[name][1])
