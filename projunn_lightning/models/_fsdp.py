"""How the models here are sharded by FSDP2."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from projunn_lightning.errors import ProjUNNError


def shard_(model: LightningModule) -> None:
    """Spread the model over the ranks where the strategy is ModelParallelStrategy; under any other leave it alone.

    Weights, gradients and optimizer states are sharded; for a forward and backward pass the weights are gathered.

    Raises:
        ValueError: if the strategy splits its ranks into tensor-parallel groups, or parameters are both real and
            complex, which FSDP2 does not shard together.
    """
    mesh = model.device_mesh
    if mesh is None:
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard  # which not every build of torch has

    if isinstance(model, FSDPModule):
        return
    if mesh["tensor_parallel"].size() > 1:
        raise ProjUNNError(
            f"{type(model).__name__} is sharded by FSDP2 alone: set the strategy's data_parallel_size to the number of "
            f"devices and tensor_parallel_size to 1, found {mesh['tensor_parallel'].size()}"
        )
    dtypes = sorted({str(parameter.dtype) for parameter in model.parameters()})
    if len(dtypes) > 1:
        raise ProjUNNError(
            f"{type(model).__name__} has parameters of {' and '.join(dtypes)}, and FSDP2 shards those of one dtype "
            "only: use strategy ddp for this model"
        )
    fully_shard(model, mesh=mesh["data_parallel"])
