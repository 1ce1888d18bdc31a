"""Draw ranks.png, the effect of rank and sampler: ``python docs/figures/ranks.py``, two minutes on one core.

The task is the task of configs/random_unitary.yaml at N = 128: a matrix is learned from 4,096 pairs (x, U x) in batches
of 16, so that an update of the optimizer has a rank of 16 at most. The program also prints the share of the updates of
an RNN that each sampler keeps.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from matplotlib.figure import Figure

from projunn_lightning import CopyingMemory, Projector, RandomUnitary, SequenceModel, UnitaryMatch
from projunn_lightning.functional import Direction, Update
from projunn_lightning.linalg import Matrices

PICTURE = Path(__file__).with_suffix(".png")
SIZE = 128
EPOCHS, STEPS = 2, 256  # steps of an epoch
EVERY = 8  # steps between two measurements
SAMPLERS = ("tangent", "lsi", "column", "subspace", "svd")


def learn(rank: int, sampler: str, retraction: str, steps: int) -> tuple[list[float], float]:
    """The distance ``|W - U|_F^2`` relative to its initial value, every few steps, and the milliseconds of a step."""
    data = RandomUnitary(SIZE, batch_size=16, train_size=16 * steps)
    data.setup("fit")
    target = data.target
    model = UnitaryMatch(SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=8 / SIZE)
    Projector(model, rank=rank, sampler=sampler, retraction=retraction).attach(optimizer)
    start = torch.linalg.matrix_norm(model.weight.detach() - target).square()
    distances, spent = [1.0], 0.0
    for _ in range(EPOCHS):
        for index, batch in enumerate(data.train_dataloader()):
            begun = time.perf_counter()
            optimizer.zero_grad()
            model.loss(batch).backward()
            optimizer.step()
            spent += time.perf_counter() - begun
            if index % EVERY == EVERY - 1:
                distance = torch.linalg.matrix_norm(model.weight.detach() - target).square()
                distances.append(float(distance / start))
    return distances, 1e3 * spent / (EPOCHS * steps)


def measured(rank: int, sampler: str, retraction: str = "exponential", *, steps: int) -> list[float]:
    """The distances of :func:`learn`. A line with some of them is printed."""
    distances, step = learn(rank, sampler, retraction, steps)
    some = "  ".join(f"{at}: {distances[at // EVERY]:.1e}" for at in (32, 64, 128, 256, 512) if at <= EPOCHS * steps)
    print(f"{retraction:8s} {sampler:9s} rank {rank:2d}  after steps {some}  {step:.2f} ms")
    return distances


def energy_kept(rank: int, sampler: str, steps: int) -> float:
    """The share of an update's energy that a sampler keeps, as a mean over the training of an RNN on copying memory."""
    seed_everything(0, verbose=False)
    data = CopyingMemory(50, batch_size=32, train_size=32 * steps)
    data.setup("fit")
    model = SequenceModel(10, 9, SIZE, nonlinearity="relu")
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    projector = Projector(model, rank=rank, sampler=sampler, lr_divider=32).attach(optimizer)
    shares: list[float] = []

    def record(names: list[str], update: Update, direction: Direction, residual: Matrices | None) -> None:
        shares.append(float(direction.energy_kept(update).mean()))

    projector.on_update = record
    for inputs, targets in data.train_dataloader():
        optimizer.zero_grad()
        model.loss(model(inputs), targets).backward()
        optimizer.step()
    return sum(shares) / len(shares)


def main(steps: int = STEPS, energy_steps: int = 200, picture: Path = PICTURE) -> None:
    """Learn with every rank and sampler, print the results and draw them."""
    torch.set_num_threads(1)
    for sampler in SAMPLERS:
        shares = ", ".join(f"{energy_kept(rank, sampler, energy_steps):.3f}" for rank in (1, 4, 16))
        print(f"copying memory, energy kept by {sampler} at rank 1, 4 and 16: {shares}")
    figure = Figure((9, 3.4), dpi=100, layout="constrained")
    by_rank, by_sampler = figure.subplots(1, 2, sharey=True)
    at = range(0, EPOCHS * steps + 1, EVERY)
    for rank in (1, 4, 16):
        by_rank.plot(at, measured(rank, "lsi", steps=steps), label=f"k = {rank}")
    for sampler in SAMPLERS:
        by_sampler.plot(at, measured(4, sampler, steps=steps), label=sampler)
    for retraction in ("polar", "cayley"):
        measured(4, "lsi", retraction, steps=steps)
    for axes, title in ((by_rank, "sampler lsi, rank k"), (by_sampler, "rank 4, five samplers")):
        axes.set(title=title, xlabel="steps", yscale="log", ylim=(1e-4, 1.5))
        axes.grid(alpha=0.3)
        axes.legend()
    by_sampler.set_xlim(0, steps)
    by_rank.set_ylabel("$|W - U|_F^2$, start = 1")
    figure.savefig(picture)


if __name__ == "__main__":
    main()
