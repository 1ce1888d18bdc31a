"""Whole training steps of a layer: forward, backward, optimizer, and the method that keeps the weight orthogonal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks import textbook
from benchmarks.race import Contestants, Race, race
from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional.recurrence import written_out
from projunn_lightning.nn import FourierConv2d, OrthogonalConv2d, UnitaryRNN


def training_step(module: nn.Module, input: Tensor, settings: dict[str, Any] | None = None) -> Callable[[], object]:
    """A training step, with the settings of the method where the module's weights are constrained."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    if settings is not None:
        Projector(module, **settings).attach(optimizer)
    direction = gradient(module(input), input)

    def step() -> None:
        optimizer.zero_grad()
        module(input).backward(direction)
        optimizer.step()

    return step


def gradient(output: Tensor, input: Tensor) -> Tensor:
    """The gradient of a linear loss. With normal inputs, a square weight gets a gradient of Frobenius norm about 1.

    The norm matters for the time of ``matrix_exp`` and its derivative. They take longer for a larger gradient, and much
    longer for a gradient so small that its products are denormal numbers. The loss ``|output|^2`` would have such a
    gradient, because it does not depend on an orthogonal weight.
    """
    return torch.randn_like(output) / (len(input) ** 0.5 * input[0].numel())


def linear(device: str, size: int = 2048, batch: int = 64) -> list[Race]:
    """A linear layer: plain, with projUNN, and under the parametrizations of other libraries."""
    input = torch.randn(batch, size, device=device)

    def layer() -> nn.Linear:
        return nn.Linear(size, size, bias=False, device=device)

    def parametrized(name: str) -> Callable[[], object]:
        return training_step(parametrizations.orthogonal(layer(), orthogonal_map=name), input)

    contestants: Contestants = {
        "plain": training_step(layer(), input),
    }
    for sampler, rank in (("lsi", 1), ("tangent", 1), ("tangent", 8)):
        for feedback in (0.0, 0.5):
            settings = {"sampler": sampler, "rank": rank, "feedback": feedback}
            name = f"projUNN, {sampler} {rank}{', feedback' if feedback else ''}"
            contestants[name] = training_step(orthogonal(layer(), init="haar"), input, settings)
    slow = {"plain": training_step(layer(), input)}
    slow |= {f"parametrizations.orthogonal, {name}": parametrized(name) for name in ("cayley", "matrix_exp")}
    if find_spec("geotorch"):
        import geotorch

        constrained = layer()
        geotorch.orthogonal(constrained, "weight")
        slow["geotorch.orthogonal"] = training_step(constrained, input)
    title = f"training step of a linear layer, N = {size}, batch {batch}, SGD"
    return [
        race(title, contestants, reference="plain", rounds=30),
        race(f"the same, baselines: {title}", slow, reference="plain", rounds=3),
    ]


def recurrence(device: str, size: int, time: int = 784, batch: int = 128) -> Race:
    """Forward and backward of an RNN over a sequence of pixels."""
    input = torch.randn(time, batch, 1, device=device)
    grad = torch.randn(time, batch, size, device=device)
    unitary = UnitaryRNN(1, size, nonlinearity="modrelu", batch_first=False, device=device)
    torchs = nn.RNN(1, size, nonlinearity="relu", device=device)
    state, buffer = torch.randn(batch, size, device=device), torch.empty(batch, size, device=device)
    weight = unitary.weight_hh_l0.detach()

    def products() -> None:
        """T products in each direction, and the product for the gradient of the weight."""
        for _ in range(2 * time):
            torch.mm(state, weight, out=buffer)
        grad.flatten(0, 1).mT @ grad.flatten(0, 1)

    def loop() -> None:
        parameters = (unitary.weight_ih_l0, unitary.weight_hh_l0, unitary.bias_l0)
        written_out(input, state, *parameters, "modrelu").backward(grad)

    contestants = {
        "the matrix products alone": products,
        "nn.RNN(relu)": lambda: torchs(input)[0].backward(grad),
        "UnitaryRNN(modReLU)": lambda: unitary(input)[0].backward(grad),
        "a loop under autograd": loop,
    }
    title = f"RNN, forward and backward, B = {batch}, T = {time}, N = {size}"
    return race(title, contestants, reference="nn.RNN(relu)", rounds=7)


class TextbookConvolution(nn.Module):
    """A convolution with one unitary matrix per frequency of the half spectrum. Its real operator is not orthogonal."""

    def __init__(self, channels: int, size: int, device: str) -> None:
        super().__init__()
        stack = torch.randn(size, size // 2 + 1, channels, channels, dtype=torch.complex64, device=device)
        self.weight = nn.Parameter(torch.linalg.qr(stack).Q)

    def forward(self, input: Tensor) -> Tensor:
        spectrum = torch.einsum("hwoi,bihw->bohw", self.weight, torch.fft.rfft2(input))
        return torch.fft.irfft2(spectrum, s=input.shape[-2:])


def textbook_step(layer: TextbookConvolution, input: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    direction = gradient(input, input)

    def step() -> None:
        optimizer.zero_grad()
        layer(input).backward(direction)
        before = layer.weight.detach().clone()
        optimizer.step()
        with torch.no_grad():
            layer.weight.copy_(textbook.projunn_t(before, *textbook.rank_k(layer.weight - before, 1)))

    return step


def convolution(device: str, channels: int = 128, size: int = 16, batch: int = 32) -> list[Race]:
    """Training steps and evaluation of orthogonal convolutions, and of a plain convolution."""
    input = torch.randn(batch, channels, size, size, device=device, requires_grad=True)

    def plain() -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device)

    def local(padding_mode: Literal["circular", "zeros"] = "circular") -> OrthogonalConv2d:
        return OrthogonalConv2d(channels, channels, 3, padding_mode=padding_mode, bias=False, device=device)

    fourier = FourierConv2d(channels, channels, size, bias=False, device=device)
    contestants: Contestants = {
        "plain 3 x 3": training_step(plain(), input),
        "plain 3 x 3, circular": training_step(circular(plain()), input),
        "OrthogonalConv2d, rank 1": training_step(local(), input, {"rank": 1}),
        "OrthogonalConv2d": training_step(local(), input, {}),
        "OrthogonalConv2d, zero padding": training_step(local("zeros"), input, {}),
        "FourierConv2d": training_step(fourier, input, {}),
        "FourierConv2d, textbook": textbook_step(TextbookConvolution(channels, size, device), input),
    }
    contestants |= {name: training_step(layer, input) for name, layer in parametrized_convolutions(plain)}
    shape = f"C = {channels}, {size} x {size}, B = {batch}"
    evaluated: dict[str, nn.Module] = {
        "plain 3 x 3": plain(),
        "plain 3 x 3, circular": circular(plain()),
        "OrthogonalConv2d": local(),
    }
    evaluated |= {"OrthogonalConv2d, folded": local().fold(), "OrthogonalConv2d, zero padding": local("zeros")}
    evaluations = {name: evaluation(layer, input.detach()) for name, layer in evaluated.items()}
    return [
        race(f"training step of a convolution, {shape}, SGD", contestants, reference="plain 3 x 3", rounds=15),
        race(f"evaluation of a convolution, {shape}", evaluations, reference="plain 3 x 3", rounds=30),
    ]


def circular(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with circular padding, as the orthogonal convolutions have it."""
    layer.padding_mode = "circular"
    return layer


def parametrized_convolutions(plain: Callable[[], nn.Conv2d]) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions of other libraries whose kernels are constrained, 3 x 3, for as many channels as the plain one."""
    for name in ("householder", "cayley"):
        kernel = parametrizations.orthogonal(plain(), orthogonal_map=name)
        yield f"parametrizations.orthogonal, {name}: kernel as a matrix", kernel
    channels = plain().in_channels
    if find_spec("deel"):
        from deel.torchlip import SpectralConv2d

        yield "deel-torchlip: SpectralConv2d", SpectralConv2d(channels, channels, 3, padding="same", bias=False)
    if find_spec("orthogonium"):
        from orthogonium.layers import AdaptiveOrthoConv2d

        options = {"padding": 1, "padding_mode": "circular", "bias": False}
        yield "orthogonium: AdaptiveOrthoConv2d", AdaptiveOrthoConv2d(channels, channels, 3, **options)


def evaluation(layer: nn.Module, input: Tensor) -> Callable[[], object]:
    """A forward pass in evaluation."""
    layer.eval()
    return torch.no_grad()(lambda: layer(input))
