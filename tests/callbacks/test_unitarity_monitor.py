import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from projunn_lightning import ProjUNN, UnitarityMonitor, orthogonal
from projunn_lightning.functional import unitarity_error


def fit(*callbacks):
    model = BoringModel()
    orthogonal(model.layer)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return model, trainer.callback_metrics["unitarity_error/layer.weight"]


def test_logs_the_error_of_each_constrained_weight():
    model, logged = fit(ProjUNN(), UnitarityMonitor(every_n_steps=2))
    torch.testing.assert_close(logged, unitarity_error(model.layer.weight))
    assert logged < 1e-6


def test_shows_what_happens_without_the_method():
    _, logged = fit(UnitarityMonitor(every_n_steps=2))
    assert logged > 1e-3


def test_refuses_an_interval_below_one():
    with pytest.raises(ValueError, match="every_n_steps must be 1 or more, found 0"):
        UnitarityMonitor(every_n_steps=0)
