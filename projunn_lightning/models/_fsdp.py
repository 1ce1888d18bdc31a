"""How the models here are sharded by FSDP2."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch.distributed.fsdp import FSDPModule, fully_shard

from projunn_lightning.constraint import declared


def shard_(model: LightningModule) -> None:
    """Spread the model over the ranks where the strategy is ModelParallelStrategy; under any other leave it alone.

    Each module with a constrained weight is gathered for its own forward and backward pass, the rest with the model.

    Raises:
        ValueError: if the strategy splits its ranks into tensor-parallel groups.
    """
    mesh = model.device_mesh
    if mesh is None or isinstance(model, FSDPModule):
        return
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            f"{type(model).__name__} is sharded by FSDP2 alone: set the strategy's data_parallel_size to the number of "
            f"devices and tensor_parallel_size to 1, found {mesh['tensor_parallel'].size()}"
        )
    owners = {name.rpartition(".")[0] for name in declared(model)}
    for owner in sorted(owners - {""}):
        fully_shard(model.get_submodule(owner), mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])
