"""The functions that the tests of sharded weights run on each rank of a world, and in one process for comparison."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from projunn_lightning import Projector, orthogonal
from projunn_lightning.functional import nearest_unitary, unitarity_error
from projunn_lightning.linalg import generator_for


class Weight(nn.Module):
    """A module with nothing but a weight. A weight of three dimensions is a batch of matrices."""

    def __init__(self, *shape: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype))


def drawn(*shape: int, key: str = "start", dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=generator_for(key))


def module_of(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A module with one random weight. It is a convolution if the weight has four dimensions."""
    module = nn.Conv2d(shape[1], shape[0], shape[2], dtype=dtype) if len(shape) == 4 else Weight(*shape, dtype=dtype)
    with torch.no_grad():
        module.weight.copy_(drawn(*shape, dtype=dtype))
    return module


def shard_(module: nn.Module, dim: int) -> None:
    """Replace the weight by a DTensor of this world, sharded along a dim."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    module.weight = nn.Parameter(distribute_tensor(module.weight.detach(), mesh, [Shard(dim)]))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, key: object) -> None:
    weight = module.weight
    full = drawn(*weight.shape, key=f"gradient {key}", dtype=weight.dtype)
    sharded = isinstance(weight, DTensor)
    weight.grad = distribute_tensor(full, weight.device_mesh, weight.placements) if sharded else full
    optimizer.step()


def whole(weight: Tensor) -> Tensor:
    return weight.detach().full_tensor() if isinstance(weight, DTensor) else weight.detach()


def trained(
    shape: tuple[int, ...], dim: int | None = None, dtype: torch.dtype = torch.float64, chunks: int = 1, **options: Any
) -> Tensor:
    """The whole weight after five steps. During the steps it is sharded along ``dim``, unless this is None."""
    module = orthogonal(module_of(*shape, dtype=dtype), chunks=chunks)
    if dim is not None:
        shard_(module, dim)
    optimizer = torch.optim.RMSprop(module.parameters(), lr=0.03)
    Projector(module, **options).attach(optimizer)
    for number in range(5):
        step(module, optimizer, number)
    return whole(module.weight)


def resumed(**options: Any) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """A sharded weight after six steps, from a resumed run and from an uninterrupted run.

    The third result is the shape of the residual in the saved state.
    """
    module = orthogonal(module_of(13, 7))
    shard_(module, 0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.03)
    projector = Projector(module, **options).attach(optimizer)
    for number in range(3):
        step(module, optimizer, number)
    state, weight = copy.deepcopy(projector.state_dict()), whole(module.weight).clone()
    for number in range(3, 6):
        step(module, optimizer, number)
    other = orthogonal(module_of(13, 7))
    other.weight.data.copy_(weight)
    shard_(other, 0)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.03)
    projector = Projector(other, **options)
    projector.load_state_dict(state)
    projector.attach(optimizer)
    for number in range(3, 6):
        step(other, optimizer, number)
    return whole(other.weight), whole(module.weight), tuple(state["weight"]["residual"].shape)


def made_unitary(shape: tuple[int, ...], dim: int, scale: float, dtype: torch.dtype) -> tuple[float, float, float]:
    """Constrain a sharded weight by a pattern.

    Return its distance from the nearest unitary matrix, its unitarity error, and the error that the projector reports.
    """
    module = module_of(*shape, dtype=dtype)
    with torch.no_grad():
        expected = nearest_unitary(module.weight.mul_(scale))
    shard_(module, dim)
    projector = Projector(module, "weight").attach(torch.optim.SGD(module.parameters(), lr=0.1))
    got = whole(module.weight)
    reported = projector.unitarity_errors()["weight"]
    return float((got - expected).abs().max()), float(unitarity_error(got).max()), float(reported)


def drifting(shape: tuple[int, ...], dim: int) -> tuple[float, float, int]:
    """The error of a weight that has drifted, before and after 64 steps, and the corrections of it."""
    module = orthogonal(module_of(*shape, dtype=torch.float32))
    shard_(module, dim)
    optimizer = torch.optim.SGD(module.parameters(), lr=0)
    projector = Projector(module).attach(optimizer)
    module.weight.to_local().data.mul_(1.001)  # which torch does not count as a change of the weight
    before = projector.unitarity_errors()["weight"]
    for number in range(64):
        step(module, optimizer, number)
    return float(before), float(projector.unitarity_errors()["weight"]), projector.reorthonormalisations


class LargestTensor(TorchDispatchMode):
    """The sizes of the largest ordinary tensor of any operation, and of the largest tensor of any collective."""

    made = communicated = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # DTensor replaces it by operations on local tensors, which come here
        result = func(*args, **(kwargs or {}))
        # DTensor computes shapes with fake tensors, which have no memory.
        tensors = [x for x in tree_leaves((args, result)) if isinstance(x, Tensor) and not isinstance(x, FakeTensor)]
        sizes = [tensor.numel() for tensor in tensors]
        self.made = max([self.made, *sizes])
        if "c10d" in str(func):
            self.communicated = max([self.communicated, *sizes])
        return result


def replicated() -> tuple[float, Tensor]:
    """The error of a weight of which every rank holds the whole, and the weight."""
    module = orthogonal(module_of(8, 8))
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1))
    module.weight = nn.Parameter(distribute_tensor(module.weight.detach(), mesh, [Replicate(), Shard(0)]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    Projector(module).attach(optimizer)
    for number in range(5):
        step(module, optimizer, number)
    return float(unitarity_error(whole(module.weight))), whole(module.weight)


def zeroed() -> str:
    """The error message for a weight that was set to zero, at the next check of the drift."""
    module = orthogonal(module_of(8, 8))
    shard_(module, 0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    Projector(module).attach(optimizer)
    with torch.no_grad():
        module.weight.zero_()
    return message(lambda: [optimizer.step() for _ in range(64)])


def largest_tensors(n: int, retraction: str, rank: int) -> tuple[int, int, int]:
    """The largest tensor that 64 steps make, and the largest tensors that they communicate.

    There are two results for the communication: the first 63 steps, and the last step, which corrects the drift.
    """
    module = orthogonal(module_of(n, n, dtype=torch.float32))
    shard_(module, 0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    projector = Projector(module, rank=rank, retraction=retraction, tolerance=1e-30).attach(optimizer)
    for _ in range(62):
        optimizer.step()
    module.weight.grad = torch.ones_like(module.weight)
    with LargestTensor() as ordinary:
        optimizer.step()
    with LargestTensor() as correcting:
        optimizer.step()
    assert projector.reorthonormalisations == 1
    return max(ordinary.made, correcting.made), ordinary.communicated, correcting.communicated


def message(function: Any, *args: Any) -> str:
    try:
        function(*args)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def refused(what: str) -> str:
    """The error message of a projector that cannot constrain a weight."""
    module = nn.Sequential(orthogonal(nn.Linear(8, 8)), nn.Linear(8, 8))
    if what == "flat":
        return message(Projector, FullyShardedDataParallel(module, device_id=torch.device("cpu")))
    layer = module[0]
    if what == "singular":
        layer = module_of(8, 8)
        nn.init.zeros_(layer.weight)
    shard_(layer, 0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    if what == "partial":
        mesh = layer.weight.device_mesh
        layer.weight = nn.Parameter(DTensor.from_local(torch.eye(8), mesh, [Partial()]))
    if what == "init":
        return message(functools.partial(orthogonal, init="haar"), layer)
    if what == "not finite":
        nn.init.constant_(layer.weight.to_local()[: 4 * dist.get_rank()], torch.inf)  # on the last rank only
    if what == "chunks":
        layer = module_of(8, 8)
        shard_(layer, 0)
        return message(lambda: Projector(layer, "weight", chunks=[5, 3]))
    settings = {"svd": {"sampler": "svd"}, "full": {"rank": "full"}, "skew": {"coordinates": "skew"}}.get(what, {})
    return message(lambda: Projector(layer, "weight", **settings).attach(optimizer))
