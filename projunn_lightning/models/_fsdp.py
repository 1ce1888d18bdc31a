"""Sharding of the models of this package by FSDP2."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from projunn_lightning.errors import ProjUNNError


def shard_(model: LightningModule) -> None:
    """Shard a model over the ranks if the strategy is ModelParallelStrategy; otherwise leave it as it is.

    Weights, gradients and optimizer states are sharded. The weights are gathered for the forward and backward pass.

    Raises:
        ProjUNNError: if the strategy has tensor-parallel groups, or the parameters have several dtypes, which FSDP2
            cannot shard together.
    """
    mesh = model.device_mesh
    if mesh is None:
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard  # not every build of torch has it

    if isinstance(model, FSDPModule):
        return
    if mesh["tensor_parallel"].size() > 1:
        raise ProjUNNError(
            f"{type(model).__name__} can be sharded by FSDP2 only: set the strategy's data_parallel_size to the number "
            f"of devices and tensor_parallel_size to 1, found {mesh['tensor_parallel'].size()}"
        )
    dtypes = sorted({str(parameter.dtype) for parameter in model.parameters()})
    if len(dtypes) > 1:
        raise ProjUNNError(
            f"{type(model).__name__} has parameters of {' and '.join(dtypes)}, and FSDP2 shards parameters of one "
            "dtype only: use strategy ddp for this model"
        )
    fully_shard(model, mesh=mesh["data_parallel"])
