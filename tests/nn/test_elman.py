"""The Elman recurrence, tested with the layer that holds its recurrent matrix as a weight."""

import pytest
import torch
from torch import nn

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


def test_multiplies_the_inputs_of_a_whole_sequence_at_once(monkeypatch):
    calls = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *args: (calls.append(args[0].shape), linear(*args))[1])
    UnitaryRNN(3, 5, num_layers=2)(torch.randn(4, 50, 3))
    assert calls == [(50, 4, 3), (50, 4, 5)]


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
        "UnitaryRNN(3, 5, num_layers=1, nonlinearity='modrelu', batch_first=True, dtype=torch.float32)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be 1 or more, found 0"),
        ({"num_layers": 0}, "num_layers must be 1 or more, found 0"),
        ({"nonlinearity": "gelu"}, "unknown nonlinearity 'gelu', expected one of modrelu, relu, tanh, identity"),
        ({"bias": False}, "modReLU without its bias is the identity"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1\.0"),
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


def test_refuses_packed_sequences():
    packed = nn.utils.rnn.pack_sequence([torch.zeros(2, 3)])
    with pytest.raises(TypeError, match="found PackedSequence; pad"):
        UnitaryRNN(3, 5)(packed)
