"""How the models here are sharded by FSDP2."""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from projunn_lightning.constraint import declared


def shard_(model: LightningModule) -> None:
    """Spread the model over the ranks where the strategy is ModelParallelStrategy; under any other leave it alone.

    Each module with a constrained weight is gathered for its own forward and backward pass, the rest with the model.

    Raises:
        ValueError: if the strategy splits its ranks into tensor-parallel groups, or a module has parameters both real
            and complex, which FSDP2 does not shard.
    """
    mesh = model.device_mesh
    if mesh is None or isinstance(model, FSDPModule):
        return
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            f"{type(model).__name__} is sharded by FSDP2 alone: set the strategy's data_parallel_size to the number of "
            f"devices and tensor_parallel_size to 1, found {mesh['tensor_parallel'].size()}"
        )
    owners = {name.rpartition(".")[0] for name in declared(model)} - {""}
    sharded: set[nn.Parameter] = set()
    for unit in [*(model.get_submodule(owner) for owner in sorted(owners, reverse=True)), model]:  # children first
        dtypes = {str(parameter.dtype) for parameter in unit.parameters() if parameter not in sharded}
        if len(dtypes) > 1:
            raise ValueError(
                f"{type(unit).__name__} has parameters of {' and '.join(sorted(dtypes))}, and FSDP2 shards a module of "
                "one dtype only: use strategy ddp for this model"
            )
        fully_shard(unit, mesh=mesh["data_parallel"])
        sharded |= set(unit.parameters())
