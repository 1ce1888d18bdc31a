"""A run with the monitor is the run without it, to the last bit, whatever a recurrent layer is called with."""

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from projunn_lightning import ProjUNN, UnitarityMonitor, orthogonal
from projunn_lightning.nn import RNNS, UnitaryRNN, make_rnn

COMPLEX = partial(UnitaryRNN, dtype=torch.complex64)


class Model(LightningModule):
    """Calls a recurrent layer as a function says, in each step and over again."""

    def __init__(self, make, call):
        super().__init__()
        torch.manual_seed(0)
        self.first = orthogonal(nn.Linear(3, 3, bias=False))
        self.rnn = make(3, 4, batch_first=True)
        self.call = call

    def training_step(self, batch, batch_idx):
        x = torch.linspace(-1, 1, 60).view(2, 10, 3)
        return self.call(self.rnn, x).abs().square().mean() + self.first.weight.square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OwnForward(nn.LSTM):
    """A layer that takes anything, reads its input by NumPy and writes to it."""

    def forward(self, input=None, scale=1.0):
        if isinstance(input, tuple):
            (input,), _ = input
        if input is None:
            input = torch.ones(2, 4, 3)
        input.numpy()
        input *= scale
        return super().forward(input)


def train(make, call, *callbacks):
    """The parameters after three steps, and what was logged."""
    model = Model(make, call)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        log_every_n_steps=1,
        callbacks=[ProjUNN(), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, [0] * 3)
    assert not model.rnn._forward_pre_hooks
    return dict(model.named_parameters()), trainer.callback_metrics


def total(layer, x):
    return layer(x)[0].sum()


def without_gradients(layer, x):
    with torch.inference_mode():
        state = layer(x)[0][..., :3]
    with torch.no_grad():
        layer(x)
    return total(layer, x + state.clone())


def a_number_made_in_inference_mode(layer, x):
    with torch.inference_mode():
        x = 1 * x
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    return layer(x)[0]


def frozen(layer, x):
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    output = layer(x)[0]
    assert not output.requires_grad
    return torch.from_numpy(output.numpy())


def frozen_after_a_trained_layer(layer, x):
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    return layer(x * torch.ones(3, requires_grad=True))[0]


def with_hooks(layer, x):
    """Hooks that read the inputs and their gradients."""
    inputs, gradients = [], []
    handles = [
        layer.register_forward_hook(lambda module, args, output: inputs.append(args[0].numpy())),
        layer.register_full_backward_hook(lambda module, into, outputs: gradients.extend(into)),
    ]
    loss = total(layer, x)
    loss.backward(retain_graph=True)
    for handle in handles:
        handle.remove()
    assert len(inputs) == 1
    assert gradients == [None]
    return loss


def of_a_copy(layer, x):
    learner = copy.deepcopy(layer)
    learner.weight_ih_l0.data.add_(1)
    total(learner, x).backward()
    return total(layer, x) + learner.weight_ih_l0.grad.sum()


def by_function_transform(layer, x):
    def loss(parameters):
        return torch.func.functional_call(layer, parameters, x)[0].sum()

    gradients = torch.func.grad(loss)({name: each.detach() for name, each in layer.named_parameters()})
    return total(layer, x) + gradients["weight_ih_l0"].sum()


def from_a_parameter(layer, x):
    prompt = nn.Parameter(x)
    loss = total(layer, prompt) + layer(input=prompt)[0].square().sum()
    loss.backward(retain_graph=True)
    return loss + prompt.grad.sum()


def gradient_penalty(layer, x):
    (gradient,) = torch.autograd.grad(total(layer, x.requires_grad_()), x, create_graph=True)
    return gradient


CALLS = {
    "a keyword": (nn.LSTM, lambda layer, x: layer(input=x)[0]),
    "keywords in another order": (nn.RNN, lambda layer, x: layer(hx=torch.ones(1, 2, 4), input=x)[0]),
    "integers": (UnitaryRNN, lambda layer, x: layer(one_hot(torch.arange(3).repeat(2, 1), 3))[0]),
    "a packed sequence": (nn.GRU, lambda layer, x: layer(pack_padded_sequence(x, [9, 5], True))[0].data),
    "a nested tuple": (OwnForward, lambda layer, x: layer(((x,), None))[0]),
    "None": (OwnForward, lambda layer, x: layer(None)[0]),
    "nothing": (OwnForward, lambda layer, x: layer()[0]),
    "an input that the layer changes": (OwnForward, lambda layer, x: layer(x, scale=2.0)[0].sum() + x.sum()),
    "complex numbers": (COMPLEX, lambda layer, x: layer(torch.complex(x, x))[0]),
    "real numbers for a complex layer": (COMPLEX, lambda layer, x: layer(x)[0]),
    "one sequence": (UnitaryRNN, lambda layer, x: layer(x[0])[0]),
    "half precision": (nn.RNN, lambda layer, x: layer.bfloat16()(x.bfloat16())[0].float()),
    "autocast": (nn.RNN, lambda layer, x: torch.autocast("cpu", torch.bfloat16)(total)(layer, x)),
    "inference mode": (nn.GRU, without_gradients),
    "a number made in inference mode": (nn.RNN, a_number_made_in_inference_mode),
    "a frozen layer": (nn.LSTM, frozen),
    "a frozen unitary layer": (UnitaryRNN, frozen),
    "a frozen layer after a trained one": (UnitaryRNN, frozen_after_a_trained_layer),
    "a compiled layer": (UnitaryRNN, lambda layer, x: torch.compile(layer, backend="eager", fullgraph=True)(x)[0]),
    "a compiled function": (nn.LSTM, lambda layer, x: torch.compile(total, backend="eager")(layer, x)),
    "two calls": (nn.LSTM, lambda layer, x: layer(layer(x)[0][..., :3])[0]),
    "no call": (nn.LSTM, lambda layer, x: layer.weight_hh_l0),
    "checkpointing": (nn.GRU, lambda layer, x: checkpoint(total, layer, x, use_reentrant=False)),
    "reentrant checkpointing": (
        nn.GRU,
        lambda layer, x: checkpoint(total, layer, x.requires_grad_(), use_reentrant=True),
    ),
    "hooks": (nn.LSTM, with_hooks),
    "a copy of the layer": (nn.LSTM, of_a_copy),
    "a function transform": (nn.RNN, by_function_transform),
    "a parameter": (nn.LSTM, from_a_parameter),
    "a gradient penalty": (nn.RNN, gradient_penalty),
}
CALLS |= {name: (partial(make_rnn, name), lambda layer, x: layer(x)[0]) for name in RNNS}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as it does without the monitor
@pytest.mark.parametrize("what", CALLS)
def test_the_monitor_changes_no_bit_of_the_run(what):
    make, call = CALLS[what]
    expected, _ = train(make, call)
    found, _ = train(make, call, UnitarityMonitor())
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [value.requires_grad for value in found.values()] == [value.requires_grad for value in expected.values()]


@pytest.mark.parametrize(
    "what",
    [
        *RNNS,
        "a keyword",
        "keywords in another order",
        "complex numbers",
        "real numbers for a complex layer",
        "one sequence",
        "half precision",
        "two calls",
        "checkpointing",
        "a parameter",
        "inference mode",
    ],
)
def test_measures_what_can_be_measured(what):
    _, logged = train(*CALLS[what], UnitarityMonitor())
    assert logged["weights/gradient_norm/rnn/first"] > 0
