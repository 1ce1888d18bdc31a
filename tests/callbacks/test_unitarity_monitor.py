import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from projunn_lightning import ProjUNN, UnitarityMonitor, orthogonal
from projunn_lightning.functional import unitarity_error


def fit(model, *callbacks):
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=0,
        callbacks=list(callbacks),
        log_every_n_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return trainer.callback_metrics["unitarity_error/layer.weight"]


def test_logs_the_error_of_each_declared_weight():
    model = BoringModel()
    orthogonal(model.layer)
    logged = fit(model, ProjUNN(), UnitarityMonitor())
    torch.testing.assert_close(logged, unitarity_error(model.layer.weight))
    assert logged < 1e-6


def test_logs_the_error_of_weights_that_the_method_chose_by_pattern():
    assert fit(BoringModel(), ProjUNN("layer.weight"), UnitarityMonitor()) < 1e-6


def test_shows_what_happens_without_the_method():
    model = BoringModel()
    orthogonal(model.layer)
    assert fit(model, UnitarityMonitor()) > 1e-3
