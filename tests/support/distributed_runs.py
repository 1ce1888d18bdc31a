"""The functions that the tests of strategies run on each rank of a world, and in one process for comparison."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from projunn_lightning import (
    AddingProblem,
    PredictionWriter,
    Projector,
    ProjUNN,
    SequenceModel,
    orthogonal,
)
from projunn_lightning.callbacks import RNGState
from projunn_lightning.cli.main import main
from projunn_lightning.functional import unitarity_error
from projunn_lightning.linalg import generator_for
from projunn_lightning.nn import OrthogonalConv2d

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def small(batch_size: int) -> tuple[SequenceModel, AddingProblem]:
    torch.manual_seed(0)
    model = SequenceModel(2, 1, 12, task="regression", output="last")
    return model, AddingProblem(length=6, batch_size=batch_size, train_size=40 * 16, val_size=16)


def fitted(
    batch_size: int,
    *,
    steps: int = 200,
    sampler: str = "tangent",
    settings: dict[str, Any] | None = None,
    ckpt_path: Path | None = None,
    ckpt_to: Path | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """The weights of a small network after some steps. It may resume a checkpoint and save another one."""
    model, data = small(batch_size)
    method = ProjUNN(**{"rank": 2, "sampler": sampler, **(settings or {})})
    trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=method, **{"devices": 1, **QUIET, **options})
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    assert trainer.global_step == steps
    if ckpt_to is not None:
        trainer.save_checkpoint(ckpt_to)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def samples_seen(by_datamodule: bool) -> list[float]:
    """The first number of every training sample of two epochs. Either the datamodule or its loader is passed to fit."""
    seen: list[float] = []

    class Recorder(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.extend(batch[0][:, 0, 0].tolist())
            return self.layer(torch.ones(1, 32)).sum()

    data = AddingProblem(length=4, batch_size=4, train_size=16, val_size=4)
    options = {"max_epochs": 2, "limit_val_batches": 0, **QUIET}
    Trainer(accelerator="cpu", devices=2, strategy="ddp", **options).fit(
        Recorder(), data if by_datamodule else data.train_dataloader()
    )
    return seen


def compressed() -> tuple[Tensor, float]:
    """A weight that torch's DDP trains with gradients compressed by PowerSGD at rank 1, and its unitarity error."""
    torch.manual_seed(0)
    model = nn.Sequential(orthogonal(nn.Linear(24, 24)), nn.Linear(24, 24))
    parallel = DistributedDataParallel(model)
    state = PowerSGDState(None, start_powerSGD_iter=2, min_compression_rate=1)
    parallel.register_comm_hook(state, powerSGD_hook)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    Projector(model).attach(optimizer)
    for step in range(20):
        optimizer.zero_grad()
        x = torch.randn(8, 24, generator=generator_for(f"{step}/{dist.get_rank()}"))
        parallel(x).square().mean().backward()
        optimizer.step()
    assert state.total_numel_after_compression < state.total_numel_before_compression
    weight = model[0].weight.detach()
    return weight, float(unitarity_error(weight))


def parallel_layers(world: bool = True) -> list[Tensor]:
    """The weights of two layers after some steps.

    In a world, the first layer is split by rows over two ranks, and the second by columns. In a world of four ranks,
    each part is in addition sharded over two ranks by ``fully_shard``.
    """
    torch.manual_seed(0)
    model = nn.Sequential(orthogonal(nn.Linear(8, 12)), nn.ReLU(), orthogonal(nn.Linear(12, 6)))
    if world:
        mesh = init_device_mesh("cpu", (dist.get_world_size() // 2, 2), mesh_dim_names=("data", "tensor"))
        parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        if mesh["data"].size() > 1:
            fully_shard(model, mesh=mesh["data"])
        assert [model[i].weight.placements[-1].dim for i in (0, 2)] == [0, 1]
        assert model[0].weight.to_local().numel() == model[0].weight.numel() // mesh.size()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    Projector(model, rank=2).attach(optimizer)
    for step in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 8, generator=generator_for(str(step)))).square().mean().backward()
        optimizer.step()
    return [model[i].weight.detach().full_tensor() if world else model[i].weight.detach() for i in (0, 2)]


class Autoencoder(LightningModule):
    """Orthogonal convolutions, whose matrices and groups two ranks share unevenly, and the adjoint of the first."""

    def __init__(self, each_layer: bool = False) -> None:
        super().__init__()
        self.each_layer = each_layer
        self.layers = nn.Sequential(
            OrthogonalConv2d(3, 4, 3),
            nn.Tanh(),
            OrthogonalConv2d(4, 6, 4, stride=(1, 2), groups=2),
            OrthogonalConv2d(6, 4, (2, 1), groups=2),
            nn.Upsample(scale_factor=(1, 2)),
        )
        self.layers.append(self.layers[0].transpose())

    def configure_model(self) -> None:
        """Shard all layers together, or each layer but those that share parameters."""
        if self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            for layer in self.layers[2:4] if self.each_layer else ():
                fully_shard(layer, mesh=mesh)
            fully_shard(self, mesh=mesh)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return (self(batch[0]) - batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", self.training_step(batch, batch_idx), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(self.parameters(), lr=3e-3)


def convolutions(
    batch_size: int, *, each_layer: bool = False, **options: Any
) -> tuple[dict[str, Tensor], float, float]:
    """The weights of an autoencoder after 40 steps, its loss in evaluation, and its largest unitarity error."""
    torch.manual_seed(0)
    model, method = Autoencoder(each_layer), ProjUNN(rank=2)
    data = TensorDataset(torch.randn(64, 3, 6, 4, generator=generator_for("images")))
    ranks = options.get("devices", 1)
    sampler = DistributedSampler(data, ranks, dist.get_rank() if ranks > 1 else 0, shuffle=False)
    loader = DataLoader(data, batch_size, sampler=sampler)
    settings = {"max_steps": 40, "check_val_every_n_epoch": 2, "devices": 1, **QUIET, **options}
    trainer = Trainer(accelerator="cpu", callbacks=method, use_distributed_sampler=False, **settings)
    trainer.fit(model, loader, loader)
    if model.device_mesh is not None:
        model.reshard()  # the last validation has gathered the weights
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if model.device_mesh is not None:
        assert all(isinstance(weight, DTensor) for weight in weights.values())
        weights = {name: weight.full_tensor() for name, weight in weights.items()}
    loss = float(trainer.callback_metrics["loss"])
    return weights, loss, float(max(method.projector.unitarity_errors().values()))


def command(folder: Path, *arguments: str) -> None:
    """Run ``projunn`` in a folder."""
    os.chdir(folder)
    warnings.simplefilter("ignore")
    sys.argv = ["projunn", *arguments]
    main()


def predicted(path: Path, samples: int, **options: Any) -> None:
    """Write predictions of a number of samples in batches of three."""
    torch.manual_seed(0)
    model = SequenceModel(2, 1, 12, task="regression", output="last")
    data = AddingProblem(length=6, batch_size=3, test_size=samples)
    trainer = Trainer(accelerator="cpu", callbacks=PredictionWriter(str(path)), **{"devices": 1, **QUIET, **options})
    trainer.predict(model, data)


class KilledAt(Callback):
    """A callback that kills the process in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def resumable(
    folder: Path,
    sampler: str,
    ckpt: Path | None = None,
    *,
    kill_at: int = -1,
    fresh: bool = False,
    workers: int = 0,
    **options: Any,
) -> dict[str, Tensor]:
    """The weights after three epochs of four batches, which save a checkpoint at every step and may resume one."""
    torch.manual_seed(0)
    model = SequenceModel(2, 1, 8, 2, task="regression", output="last", dropout=0.5)
    samples = 16 * options.get("devices", 1)
    data = AddingProblem(length=5, batch_size=4, train_size=samples, val_size=8, fresh=fresh, num_workers=workers)
    callbacks = [
        ProjUNN(rank=2, sampler=sampler),
        RNGState(),
        ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1),
        KilledAt(kill_at),
    ]
    settings = {
        "max_epochs": 3,
        "val_check_interval": 2,
        "devices": 1,
        **QUIET,
        "enable_checkpointing": True,
        **options,
    }
    trainer = Trainer(accelerator="cpu", callbacks=callbacks, **settings)
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    assert trainer.global_step == 12
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
