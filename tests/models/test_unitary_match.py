import pytest
import torch
from lightning.pytorch import Trainer

from projunn_lightning import ProjUNN, RandomUnitary, UnitaryMatch
from projunn_lightning.functional import unitarity_error


def distance_after(rank, *, complex=True, sampler="column", epochs=1):
    size = 32
    model, data = UnitaryMatch(size, complex=complex, learning_rate=8 / size), RandomUnitary(size, complex=complex)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=ProjUNN(rank=rank, sampler=sampler),
        limit_train_batches=32,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    (result,) = trainer.test(model, datamodule=data, verbose=False)
    assert unitarity_error(model.weight) < 1e-6
    assert result["test/distance"] == pytest.approx(
        torch.linalg.matrix_norm(model.weight - data.target).square().item(), rel=1e-4, abs=1e-9
    )
    return result["test/distance"] / (2 * size)


@pytest.mark.parametrize("complex", [True, False])
@pytest.mark.parametrize("sampler", ["column", "lsi"])
def test_finds_the_matrix(sampler, complex):
    assert distance_after(4, complex=complex, sampler=sampler, epochs=8) < 1e-4


def test_a_higher_rank_finds_the_matrix_in_fewer_steps():
    distances = [distance_after(rank) for rank in (1, 2, 4)]
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_the_expectation_of_the_loss_is_the_distance():
    model, data = UnitaryMatch(20), RandomUnitary(20)
    loss = model.loss(data.dataset("train").__getitems__(range(4000)))
    torch.testing.assert_close(loss, torch.linalg.matrix_norm(model.weight - data.target).square(), rtol=0.05, atol=0)


def test_refuses_vectors_of_another_size():
    with pytest.raises(ValueError, match=r"input must be \(B, 20\), found \(2, 21\)"):
        UnitaryMatch(20).loss((torch.zeros(2, 21) + 0j, torch.zeros(2, 21) + 0j))
