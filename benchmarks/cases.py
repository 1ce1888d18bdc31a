"""``python -m benchmarks.cases``: does the constraint help a model? Small models of six kinds, plain and constrained.

The plain contestant trains the same weights from the same orthogonal start without a constraint. The rate of these
weights is searched for every contestant, see :mod:`benchmarks.runner`, whose options this command takes:

    python -m benchmarks.cases --output search.csv
    python -m benchmarks.cases --best search.csv --seeds 5 --output cases.csv
    python -m benchmarks.cases --output cases.csv --draw cases.png
"""

from __future__ import annotations

import copy
import math
import pydoc_data.topics
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import study
from benchmarks.runner import Contestant, Made, Problem, main
from examples import adapter as example
from projunn_lightning import orthogonal
from projunn_lightning.data.digits import rendered_digits
from projunn_lightning.nn import OrthogonalConv2d

RANKS: tuple[int | str, ...] = (1, 4, 16, "full")


def constrained(prefix: str = "", **model: Any) -> dict[str, Contestant]:
    """A contestant for each rank, with the default settings of the method and the model's options."""
    return {f"{prefix}rank {rank}": Contestant({"rank": rank}, model) for rank in RANKS}


PLAIN = {"plain": Contestant(None)}
RECURRENT = {"methods/recurrent": Contestant({"rank": 8, "coordinates": "skew", "feedback": 0.9})}


def batches(count: int, size: int, seed: int) -> Callable[[int], Tensor]:
    """Random numbers of samples for each step, a function of the seed and the step."""
    return lambda step: torch.randint(count, (size,), generator=torch.Generator().manual_seed(10**6 * seed + step))


def images(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Drawn digits with pixels from 0 to 1, and their classes."""
    pixels, classes = rendered_digits(split)
    return pixels[:count] / 255, classes[:count]


# ---- recurrent and gated: the problems are those of the study ----


def elman(nonlinearity: str, inputs: int, hidden: int) -> nn.Module:
    """A plain ``nn.RNN``, whose recurrent matrix is orthogonal at the start."""
    layer = nn.RNN(inputs, hidden, nonlinearity=nonlinearity, batch_first=True)
    return orthogonal(layer, "weight_hh_l0", init="henaff")


def gated(inputs: int, hidden: int) -> nn.Module:
    """A plain ``nn.GRU``, whose recurrent matrices, one for each gate, are orthogonal at the start."""
    return orthogonal(nn.GRU(inputs, hidden, batch_first=True), "weight_hh_l0", init="haar_so")


# ---- transformer ----


class Block(nn.Module):
    """Causal attention with orthogonal projections, and a feed-forward network, each with a skip.

    With ``chunks=heads`` each head has an orthogonal matrix of its own in each projection. Heads are rows of the
    output's weight too, which is therefore multiplied from the right.
    """

    def __init__(self, width: int, heads: int, chunks: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        for layer in (self.q, self.k, self.v, self.o):
            nn.init.orthogonal_(layer.weight)  # also the rows of each head are then orthonormal
            orthogonal(layer, chunks=chunks)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norms[0](x)
        q, k, v = (layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.transpose(1, 2).flatten(-2) @ self.o.weight
        return x + self.mlp(self.norms[1](x))


class GPT(nn.Module):
    """A transformer that predicts the next character."""

    def __init__(self, symbols: int, context: int, width: int, heads: int, chunks: int) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(symbols, width), nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads, chunks) for _ in range(2)))
        self.readout = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, symbols))

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.blocks(self.characters(x) + self.places))


def text() -> tuple[Tensor, int]:
    """The help topics of this version of Python as numbers of characters, and the number of different characters."""
    joined = "".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    numbers = {character: number for number, character in enumerate(sorted(set(joined)))}
    return torch.tensor([numbers[character] for character in joined]), len(numbers)


def transformer(width: int, heads: int, context: int) -> Callable[..., Made]:
    """Next characters of Python's help topics; the cross-entropy on the last tenth in nats a character."""

    def make(seed: int, chunks: int = 1) -> Made:
        numbers, symbols = text()
        train, test = numbers.split([len(numbers) * 9 // 10, -(-len(numbers) // 10)])
        torch.manual_seed(seed)
        model = GPT(symbols, context, width, heads, chunks)
        starts = batches(len(train) - context, 16, seed)

        def loss_on(part: Tensor, places: Tensor) -> Tensor:
            windows = part[places[:, None] + torch.arange(context + 1)]
            return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

        def tested() -> float:
            with torch.no_grad():
                return float(loss_on(test, torch.arange(0, len(test) - context, context)[:400]))

        return model, lambda step: loss_on(train, starts(step)), tested

    return make


# ---- flow ----


class Step(nn.Module):
    """A step of a flow: a scale and a shift, a linear mixing of the channels, and an affine coupling of their halves.

    An orthogonal mixing keeps volumes. ``determinant`` says whether to compute the logarithm of its determinant.
    """

    def __init__(self, channels: int, hidden: int, determinant: bool) -> None:
        super().__init__()
        self.determinant = determinant
        self.scale, self.shift = (nn.Parameter(torch.zeros(channels, 1, 1)) for _ in range(2))
        self.mixing = orthogonal(nn.Conv2d(channels, channels, 1, bias=False), init="haar_so")
        last = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.coupling = nn.Sequential(
            nn.Conv2d(channels // 2, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.ReLU(), last
        )

    @torch.no_grad()
    def standardise_(self, x: Tensor) -> Tensor:
        """Choose the scale and the shift so that the channels have the mean 0 and the variance 1; return the image."""
        deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True)
        self.scale.copy_(-deviation[0].log())
        self.shift.copy_(-(mean / deviation)[0])
        return self(x)[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image of x, and the logarithm of the change of volume for each sample."""
        pixels = x[0, 0].numel()
        volume = pixels * self.scale.sum()
        if self.determinant:
            volume = volume + pixels * torch.linalg.slogdet(self.mixing.weight.flatten(1)).logabsdet
        kept, changed = self.mixing(x * self.scale.exp() + self.shift).chunk(2, dim=1)
        scale, shift = self.coupling(kept).chunk(2, dim=1)
        scale = scale.tanh()
        return torch.cat([kept, changed * scale.exp() + shift], dim=1), volume + scale.flatten(1).sum(1)


def flow(steps: int, hidden: int) -> Callable[..., Made]:
    """The density of drawn digits, four times halved into 16 channels; bits a pixel of the test images."""

    def make(seed: int, determinant: bool = False) -> Made:
        train, test = (images(split, count)[0] for split, count in (("train", 10_000), ("test", 1000)))
        torch.manual_seed(seed)
        model = nn.ModuleList(Step(16, hidden, determinant) for _ in range(steps))
        chosen = batches(len(train), 64, seed)

        def channels(pixels: Tensor, key: int) -> Tensor:
            noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(key))
            return F.pixel_unshuffle((255 * pixels + noise) / 256, 4)

        def bits(pixels: Tensor, key: int) -> Tensor:
            x, volume = channels(pixels, key), torch.zeros(())
            for step in model:
                x, more = step(x)
                volume = volume + more
            likelihood = volume - 0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
            return 8 - likelihood.mean() / (pixels[0].numel() * math.log(2))

        x = channels(train[:1000], 10**9 + seed)
        for step in model:
            x = step.standardise_(x)

        def tested() -> float:
            with torch.no_grad():
                return float(bits(test, 10**9 + seed))

        return model, lambda step: bits(train[chosen(step)], 10**6 * seed + step), tested

    return make


# ---- ordinary convolution ----


def convolution(width: int) -> Callable[..., Made]:
    """Drawn digits by three convolutions of 3 x 3; the share of the test images whose class is wrong."""

    def make(seed: int, layer: Callable[..., nn.Module] | None = None) -> Made:
        (x, classes), (test, expected) = images("train", 10_000), images("test", 2000)
        torch.manual_seed(seed)
        layer = layer or (lambda *shape, stride: orthogonal(nn.Conv2d(*shape, stride, padding=1), init="haar"))
        stages: list[nn.Module] = []
        for channels, stride in ((1, 2), (width, 2), (2 * width, 1)):
            outputs = 2 * width if channels > 1 else width
            stages += [layer(channels, outputs, 3, stride=stride), nn.BatchNorm2d(outputs), nn.ReLU()]
        model = nn.Sequential(*stages, nn.Flatten(), nn.Linear(2 * width * 7 * 7, 10))
        chosen = batches(len(x), 64, seed)

        def loss(step: int) -> Tensor:
            batch = chosen(step)
            return F.cross_entropy(model(x[batch]), classes[batch])

        def wrong() -> float:
            model.eval()
            with torch.no_grad():
                return float((model(test).argmax(1) != expected).double().mean())

        return model, loss, wrong

    return make


# ---- adapter ----


@cache
def pretrained(seed: int, steps: int) -> nn.Sequential:
    """The network of ``examples/adapter.py``, which has learned to read upright digits."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(28 * 28, 256), nn.ReLU(), nn.Linear(256, 10))
    example.train(model, torch.optim.Adam(model.parameters(), lr=1e-3), quarters=0, steps=steps)
    return model.requires_grad_(False)


def adapter(pretraining: int) -> Callable[[int], Made]:
    """A matrix in front of a frozen layer learns to read turned digits; the share of wrong answers."""

    def make(seed: int) -> Made:
        layer, activation, readout = copy.deepcopy(pretrained(seed, pretraining))
        model = nn.Sequential(example.Rotated(layer), activation, readout)
        x, classes = example.images("train", quarters=1)
        chosen = batches(len(x), 128, seed)

        def loss(step: int) -> Tensor:
            batch = chosen(step)
            return F.cross_entropy(model(x[batch]), classes[batch])

        return model, loss, lambda: 1 - example.accuracy(model, quarters=1)

    return make


GRID = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
SLOW, MIDDLE, FAST = ({"adam": GRID[start:end]} for start, end in ((0, 6), (3, 8), (4, 9)))
"""Grids of rates. ``docs/does-it-help.md`` names the contestants whose best rate is at an end of their grid."""
HEADS = 4
RNNS = {
    f"recurrent-{nonlinearity}": Problem(
        study.copying(10, 64, partial(elman, nonlinearity)),
        1500,
        SLOW,
        "share of the baseline's loss",
        PLAIN | constrained() | RECURRENT,
    )
    for nonlinearity in ("relu", "tanh")
}
CASES = RNNS | {
    "gated": Problem(
        study.adding(20, 64, gated), 1000, MIDDLE, "share of the baseline's error", PLAIN | constrained() | RECURRENT
    ),
    "transformer": Problem(
        transformer(64, HEADS, 64),
        300,
        MIDDLE,
        "nats a character",
        PLAIN | constrained() | constrained("by head, ", chunks=HEADS),
    ),
    "flow": Problem(
        flow(4, 32), 400, MIDDLE, "bits a pixel", {"plain": Contestant(None, {"determinant": True})} | constrained()
    ),
    "convolution": Problem(
        convolution(16),
        200,
        FAST,
        "share of wrong answers",
        PLAIN
        | constrained()
        | constrained("OrthogonalConv2d, ", layer=partial(OrthogonalConv2d, padding_mode="zeros")),
    ),
    "adapter": Problem(adapter(500), 400, MIDDLE, "share of wrong answers", PLAIN | constrained() | RECURRENT),
}

if __name__ == "__main__":
    main(CASES, "benchmarks.cases", __doc__)
