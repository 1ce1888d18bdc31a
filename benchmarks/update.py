"""The update of a constrained weight, given the optimizer's update: sample it at rank k, and retract."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Generator, Tensor, nn

from benchmarks import textbook
from benchmarks.race import Contestants, Race, milliseconds, race
from projunn_lightning import Projector
from projunn_lightning.functional import RETRACTIONS, SAMPLERS, Update
from projunn_lightning.functional.init import haar_
from projunn_lightning.linalg import matrices_of

GROWTH = (1024, 2048, 4096, 8192)
SLOW = 2_000
"""If a method takes longer than this number of milliseconds, no larger matrix is tried."""


def matrices(size: int, device: str) -> tuple[Tensor, Tensor]:
    """A weight, and the update of a small step, with an operator norm of about 2e-3."""
    generator = torch.Generator(device).manual_seed(0)
    random = torch.randn(size, size, generator=generator, device=device)
    weight = haar_(random.clone()) if size <= 2048 else random / size**0.5  # the cost does not depend on the values
    return weight, 1e-3 / size**0.5 * torch.randn(size, size, generator=generator, device=device)


def ours(
    weight: Tensor, update: Tensor, rank: int = 1, retraction: str = "exponential", sampler: str = "lsi"
) -> Callable[[], object]:
    """The sampling and the retraction in a Projector's step. The copy and the difference are not included."""
    generator = Generator(weight.device).manual_seed(0)
    w, d = matrices_of(weight[None]), matrices_of(update[None])  # as in a group with one weight
    update_of, basis = Update(d, w), None

    def step() -> None:
        nonlocal basis
        direction, basis = SAMPLERS[sampler].sample(update_of, rank, [generator], basis)
        change = direction.change(RETRACTIONS[retraction], update_of, 1.0)
        w.add_product(change.left, change.right, out=w)

    return step


def by_the_book(weight: Tensor, update: Tensor, rank: int, retraction: str) -> Callable[[], object]:
    project = textbook.projunn_d if retraction == "polar" else textbook.projunn_t
    return lambda: project(weight, *textbook.rank_k(update, rank))


def bare(weight: Tensor, update: Tensor) -> Callable[[], object]:
    return lambda: weight.add_(update)


def matrix_exp(weight: Tensor, update: Tensor) -> Callable[[], object]:
    return lambda: torch.matrix_exp(update - update.mT) @ weight


def cayley(weight: Tensor, update: Tensor) -> Callable[[], object]:
    eye = torch.eye(len(weight), device=weight.device)
    half = 0.5 * (update - update.mT)
    return lambda: torch.linalg.solve(eye - half, (eye + half) @ weight)


def pogo(weight: Tensor, update: Tensor) -> Callable[[], object]:
    from pogo import POGO, base

    parameter = nn.Parameter(weight[None])
    parameter.grad = update[None]
    optimizer = POGO([parameter], base.SGD(), 1.0)
    return optimizer.step


def others(size: int, device: str) -> Contestants:
    """Updates of the whole matrix by other methods."""
    contestants = {
        "one Cayley transform": cayley(*matrices(size, device)),
        "one matrix_exp": matrix_exp(*matrices(size, device)),
    }
    if find_spec("pogo"):
        contestants["POGO"] = pogo(*matrices(size, device))
    return contestants


def updates(device: str, size: int = 2048) -> list[Race]:
    """One update by every method, and by projUNN at several ranks."""
    contestants = {"W.add_": bare(*matrices(size, device))}
    for retraction in ("exponential", "polar", "cayley"):
        contestants[f"projUNN, {retraction}"] = ours(*matrices(size, device), retraction=retraction)
    contestants["projUNN, exponential, tangent"] = ours(*matrices(size, device), sampler="tangent")
    for retraction in ("exponential", "polar"):
        contestants[f"textbook, {retraction}"] = by_the_book(*matrices(size, device), 1, retraction)
    slow = race(
        f"the same at rank 1, O(N^3), N = {size}",
        {"W.add_": bare(*matrices(size, device))} | others(size, device),
        reference="W.add_",
        rounds=3,
    )
    by_rank: Contestants = {}
    for rank in (1, 4, 8, 16):
        by_rank[f"projUNN, k = {rank}"] = ours(*matrices(size, device), rank)
        by_rank[f"projUNN, tangent, k = {rank}"] = ours(*matrices(size, device), rank, sampler="tangent")
        by_rank[f"textbook, k = {rank}"] = by_the_book(*matrices(size, device), rank, "exponential")
    return [
        race(f"rank-1 update, N = {size}", contestants, reference="W.add_"),
        slow,
        race(f"rank-k update, exponential, N = {size}", by_rank, reference="projUNN, k = 1"),
    ]


def bookkeeping(device: str, count: int = 1000, size: int = 16) -> Race:
    """A step with many small weights: SGD alone, SGD with a Projector, and the tensor work of the Projector alone.

    The second time minus the other two is the bookkeeping of the Projector: it notices replaced parameters, seeds the
    random numbers and counts steps.
    """
    # The tensor work has weights of its own, because a projector notices weights that change between its steps.
    plain, constrained, bare = (
        nn.ModuleList(nn.Linear(size, size, bias=False, device=device) for _ in range(count)) for _ in range(3)
    )
    optimizers = [torch.optim.SGD(module.parameters(), lr=1e-3) for module in (plain, constrained, bare)]
    for parameter in (*plain.parameters(), *constrained.parameters()):
        parameter.grad = torch.randn_like(parameter)
    Projector(constrained, "*.weight", rank=1, sampler="lsi").attach(optimizers[1])
    (group,) = Projector(bare, "*.weight", rank=1, sampler="lsi").attach(optimizers[2]).groups
    generators = [Generator(device).manual_seed(i) for i in range(count)]

    @torch.no_grad()
    def tensor_work() -> None:
        group.snapshots.take()
        w, d = group.snapshots.subtract()
        update = Update(d, w)
        direction, _ = SAMPLERS["lsi"].sample(update, 1, generators, None)
        change = direction.change(RETRACTIONS["exponential"], update, 1.0)
        w.add_product(change.left, change.right, out=d)
        group.snapshots.store()

    contestants = {"SGD": optimizers[0].step, "SGD and Projector": optimizers[1].step, "its tensor work": tensor_work}
    return race(f"step of {count} weights of {size} x {size}", contestants, reference="SGD", rounds=50)


def growth(device: str) -> dict[str, dict[int, float]]:
    """Milliseconds of an update by method and N, each the median of up to 15 updates within two seconds."""
    times: dict[str, dict[int, float]] = {}
    for size in GROWTH:
        contestants = {"W.add_": bare(*matrices(size, device)), "projUNN, k = 1": ours(*matrices(size, device))}
        contestants |= others(size, device)
        for name, contestant in contestants.items():
            before = list(times.setdefault(name, {}).values())
            if before and before[-1] > SLOW:
                continue
            first = milliseconds(contestant)
            repeats = max(1, min(15, int(2000 / first)))
            times[name][size] = statistics.median(milliseconds(contestant) for _ in range(repeats))
    return times
