"""``python -m benchmarks.study``: which settings of the method learn best, over problems, optimizers and seeds.

:mod:`benchmarks.runner` says what a run is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import manifold
from benchmarks.runner import Contestant, Made, Problem, main
from projunn_lightning import orthogonal
from projunn_lightning.functional import init
from projunn_lightning.nn import UnitaryRNN

CONTESTANTS: dict[str, Contestant] = {
    "lsi 1": Contestant({"sampler": "lsi", "rank": 1}),
    "lsi 8": Contestant({"sampler": "lsi", "rank": 8}),
    "column 8": Contestant({"sampler": "column", "rank": 8}),
    "subspace 8": Contestant({"sampler": "subspace", "rank": 8}),
    "lsi 8, 0.9": Contestant({"sampler": "lsi", "rank": 8, "feedback": 0.9}),
    "tangent 1": Contestant({"sampler": "tangent", "rank": 1}),
    "tangent 8": Contestant({"sampler": "tangent", "rank": 8}),
    "tangent 1, 0.9": Contestant({"sampler": "tangent", "rank": 1, "feedback": 0.9}),
    "tangent 8, 0.5": Contestant({"sampler": "tangent", "rank": 8, "feedback": 0.5}),
    "tangent 8, 0.9": Contestant({"sampler": "tangent", "rank": 8, "feedback": 0.9}),
    "full": Contestant({"rank": "full"}),
    "skew 8": Contestant({"sampler": "tangent", "rank": 8, "coordinates": "skew"}),
    "skew 1, 0.9": Contestant({"sampler": "tangent", "rank": 1, "feedback": 0.9, "coordinates": "skew"}),
    "skew 4, 0.9": Contestant({"sampler": "tangent", "rank": 4, "feedback": 0.9, "coordinates": "skew"}),
    "skew 8, 0.9": Contestant({"sampler": "tangent", "rank": 8, "feedback": 0.9, "coordinates": "skew"}),
    "skew full": Contestant({"rank": "full", "coordinates": "skew"}),
}
"""The settings of the method, by the name that tables use: sampler or coordinates, rank, feedback."""


def pca(n: int, p: int) -> Callable[[int], Made]:
    """Online PCA: -tr(W^T A W)/2 with eigenvalues of A from 0.01 to 10; the relative gap to the optimum."""

    def make(seed: int) -> Made:
        problem = manifold.pca(n, p, seed)
        module = orthogonal(nn.Linear(p, n, bias=False), init="haar")
        return module, lambda step: problem.loss(module.weight), lambda: problem.gap(module.weight.detach())

    return make


def rotation(n: int) -> Callable[[int], Made]:
    """An unknown rotation from its entries; the relative distance to it."""

    def make(seed: int) -> Made:
        torch.manual_seed(seed)
        x = torch.randn(n, n)
        target = torch.matrix_exp(0.5 * (x - x.mT) / n**0.5)
        module = orthogonal(nn.Linear(n, n, bias=False), init="identity")

        def loss(step: int) -> Tensor:
            return 0.5 * (module.weight - target).square().sum()

        def distance() -> float:
            return float((module.weight.detach() - target).norm() / target.norm())

        return module, loss, distance

    return make


def fresh(n: int) -> Callable[[int], Made]:
    """An unknown orthogonal matrix from batches of 16 new random vectors; the relative distance to it."""

    def make(seed: int) -> Made:
        target = init.haar_so_(torch.empty(n, n), generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        module = orthogonal(nn.Linear(n, n, bias=False), init="haar_so")

        def loss(step: int) -> Tensor:
            x = torch.randn(16, n, generator=torch.Generator().manual_seed(10**6 * seed + step))
            return 0.5 * (module(x) - x @ target.mT).square().mean()

        def distance() -> float:
            return float((module.weight.detach() - target).norm() / target.norm())

        return module, loss, distance

    return make


Layer = Callable[[int, int], nn.Module]
"""Makes a recurrent layer of numbers of inputs and of hidden units."""
CAYLEY, HENAFF = (partial(UnitaryRNN, init=init) for init in ("cayley", "henaff"))


class Reader(nn.Module):
    """A recurrent layer with a linear read-out."""

    def __init__(self, layer: Layer, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = layer(inputs, hidden)
        self.readout = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.rnn(x)[0])


def adding(length: int, hidden: int, layer: Layer = CAYLEY) -> Callable[[int], Made]:
    """The adding problem; the mean squared error over that of answering 1."""
    from projunn_lightning.data.adding import adding_problem

    def make(seed: int) -> Made:
        torch.manual_seed(seed)
        model = Reader(layer, 2, hidden, 1)

        def loss_on(count: int, key: int) -> Tensor:
            x, y = adding_problem(length, count, torch.Generator().manual_seed(key))
            return nn.functional.mse_loss(model(x)[:, -1], y)

        def tested() -> float:
            with torch.no_grad():
                return 6 * float(loss_on(2000, 10**9 + seed))

        return model, lambda step: loss_on(50, 10**6 * seed + step), tested

    return make


def copying(delay: int, hidden: int, layer: Layer = HENAFF) -> Callable[[int], Made]:
    """Copying memory; the cross-entropy over that of guessing the symbols."""
    from projunn_lightning.data.copying import copying_memory

    def make(seed: int) -> Made:
        torch.manual_seed(seed)
        model = Reader(layer, 10, hidden, 9)
        baseline = 10 * math.log(8) / (delay + 20)

        def loss_on(count: int, key: int) -> Tensor:
            x, y = copying_memory(delay, 10, 8, count, torch.Generator().manual_seed(key))
            return nn.functional.cross_entropy(model(nn.functional.one_hot(x, 10).float()).flatten(0, 1), y.flatten())

        def tested() -> float:
            with torch.no_grad():
                return float(loss_on(500, 10**9 + seed)) / baseline

        return model, lambda step: loss_on(32, 10**6 * seed + step), tested

    return make


def permuted_mnist(hidden: int) -> Callable[[int], Made]:
    """Permuted MNIST; the share of the test images whose class is wrong."""
    from projunn_lightning.data import PixelSequence

    def make(seed: int) -> Made:
        task = PixelSequence()
        task.setup()
        prepare, nothing = task.preparation("train"), torch.Generator()
        (train, classes), (test, expected) = (task.images[split] for split in ("train", "test"))
        torch.manual_seed(seed)
        model = Reader(HENAFF, 1, hidden, 10)
        shuffled = torch.cat([torch.randperm(len(train)) for _ in range(2)]).split(128)

        def loss(step: int) -> Tensor:
            chosen = shuffled[step]
            return nn.functional.cross_entropy(model(prepare(train[chosen], nothing))[:, -1], classes[chosen])

        def wrong() -> float:
            with torch.no_grad():
                guessed = [model(prepare(images, nothing))[:, -1].argmax(1) for images in test.split(1000)]
            return float((torch.cat(guessed) != expected).double().mean())

        return model, loss, wrong

    return make


RNN_RATES = dict.fromkeys(("rmsprop", "adam"), (1e-4, 3e-4, 1e-3, 3e-3)) | {"matrix": (3e-4, 1e-3, 3e-3, 1e-2)}
PROBLEMS = {
    "pca 120": Problem(pca(120, 90), 2000, {"sgd": (0.01, 0.03, 0.1, 0.3)}, "relative gap", CONTESTANTS),
    "pca 400": Problem(pca(400, 300), 3000, {"sgd": (0.01, 0.03, 0.1, 0.3)}, "relative gap", CONTESTANTS),
    "rotation 64": Problem(
        rotation(64),
        300,
        {
            "sgd": (0.05, 0.1, 0.25, 0.5, 1.0),
            "rmsprop": (1e-3, 3e-3, 1e-2, 3e-2),
            "adam": (1e-3, 3e-3, 1e-2, 3e-2),
            "matrix": (1e-3, 3e-3, 1e-2, 3e-2),
        },
        "relative distance",
        CONTESTANTS,
    ),
    "fresh 256": Problem(fresh(256), 300, {"sgd": (4.0, 8.0, 16.0, 32.0, 64.0)}, "relative distance", CONTESTANTS),
    "adding 50": Problem(adding(50, 64), 4000, RNN_RATES, "share of the baseline's error", CONTESTANTS),
    "adding 200": Problem(adding(200, 128), 6000, RNN_RATES, "share of the baseline's error", CONTESTANTS),
    "copying 50": Problem(copying(50, 64), 800, RNN_RATES, "share of the baseline's loss", CONTESTANTS),
    "copying 200": Problem(copying(200, 128), 1500, RNN_RATES, "share of the baseline's loss", CONTESTANTS),
    "mnist 784": Problem(permuted_mnist(116), 840, RNN_RATES, "share of wrong answers", CONTESTANTS),
}

if __name__ == "__main__":
    main(PROBLEMS, "benchmarks.study", __doc__)
