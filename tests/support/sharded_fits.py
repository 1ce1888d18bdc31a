"""The functions that the tests of Lightning's ModelParallelStrategy run on each rank of a world."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset

from projunn_lightning import (
    AddingProblem,
    ImageClassifier,
    Projector,
    ProjUNN,
    RandomUnitary,
    SequenceModel,
    UnitaryMatch,
    orthogonal,
)
from tests.support.distributed_runs import QUIET, small


def trainer(*callbacks: Any, **options: Any) -> Trainer:
    settings = {"strategy": ModelParallelStrategy(2, 1), "devices": 2, "max_epochs": 2, **QUIET, **options}
    return Trainer(accelerator="cpu", callbacks=list(callbacks), **settings)


def fitted_sharded(batch_size: int, folder: Path, distributed_checkpoint: bool) -> dict[str, Tensor]:
    """The whole weights of a small network after 20 steps, the last ten of them resumed from a checkpoint."""
    results = {}
    for steps, ckpt in ((10, None), (20, folder / "half.ckpt")):
        model, data = small(batch_size)
        strategy = ModelParallelStrategy(2, 1, save_distributed_checkpoint=distributed_checkpoint)
        run = trainer(ProjUNN(rank=2), strategy=strategy, max_steps=steps)
        run.fit(model, data, ckpt_path=ckpt)
        run.save_checkpoint(folder / "half.ckpt")
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        results = {name: parameter.detach().full_tensor() for name, parameter in model.named_parameters()}
    return results


def matched(complex: bool) -> tuple[float, float]:
    """The unitarity error of a UnitaryMatch model after training with validation, and the distance that it moved."""
    torch.manual_seed(0)
    model = UnitaryMatch(12, complex=complex)
    method = ProjUNN(rank=2)
    trainer(method).fit(model, RandomUnitary(12, complex=complex, train_size=64, val_size=32))
    error = method.projector.unitarity_errors()["weight"]
    return float(error), float((model.weight.detach().full_tensor() - torch.eye(12)).norm())


def from_an_unconstrained_checkpoint(folder: Path) -> tuple[list[str], float]:
    """The warnings and the largest unitarity error of a constrained run that resumes an unconstrained checkpoint."""
    sizes = {"task": "regression", "output": "last"}
    data = AddingProblem(length=6, batch_size=8, train_size=64, val_size=16)
    plain = trainer(max_epochs=1)
    plain.fit(SequenceModel(2, 1, 12, **sizes), data)
    plain.save_checkpoint(folder / "plain.ckpt")
    model, method, errors = SequenceModel(2, 1, 12, **sizes), ProjUNN(), []

    class Look(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            errors.append(float(method.projector.unitarity_errors()["rnn.weight_hh_l0"]))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(method, Look()).fit(model, data, ckpt_path=folder / "plain.ckpt")
    return [str(warning.message) for warning in caught], max(errors)


def after_an_evaluation() -> float:
    """The unitarity error of a projector that is used while FSDP2 holds the weights gathered for an evaluation."""
    model = orthogonal(nn.Linear(8, 8), init="haar")
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model(torch.ones(2, 8))
    projector = Projector(model).attach(optimizer)
    for _ in range(3):
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
        with torch.no_grad():
            model(torch.ones(2, 8))
    return float(projector.unitarity_errors()["weight"])


def shard_convolutions() -> None:
    trainer().fit(ImageClassifier("plain", 1, 4, 2, width=2, depth=2, convolution="fourier"), [])


def certified() -> tuple[float, float]:
    """The certified accuracy of a sharded 1-Lipschitz network after training, and its largest unitarity error."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    images = 0.2 * torch.randn(64, 1, 4, 4) + 2.0 * labels[:, None, None, None]
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    model = ImageClassifier("plain", 1, 4, 2, width=4, depth=2, lipschitz=True, temperature=0.1, learning_rate=1e-2)
    method = ProjUNN()
    run = trainer(method, max_epochs=5)
    run.fit(model, loader, loader)
    error = max(map(float, method.projector.unitarity_errors().values()))
    return float(run.callback_metrics["val/certified_accuracy"]), error


def samples_of_tensor_parallel_ranks() -> list[int]:
    """The indices of an epoch if two ranks hold the parts of one model."""
    data = AddingProblem(length=4, train_size=6, val_size=4)
    data.trainer = trainer(strategy=ModelParallelStrategy(1, 2))
    data.trainer.strategy._lightning_module = SequenceModel(2, 2, 4)
    data.trainer.strategy.setup_environment()
    return list(data.train_dataloader().sampler)
