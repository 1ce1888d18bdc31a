"""The state of random number generators in checkpoints."""

import pytest
import torch

from projunn_lightning.callbacks import RNGState
from tests.support.fits import Net, loader, trainer

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")


class Draws(Net):
    """Keeps a random number of each training step."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def on_train_start(self):
        torch.rand(self.trainer.global_step)  # the start of a resumed run draws numbers of its own

    def training_step(self, batch, batch_idx):
        self.drawn.append(torch.rand(()).item())
        return super().training_step(batch, batch_idx)


def drawn(steps, ckpt=None):
    model, run = Draws(), trainer(RNGState(), max_steps=steps, max_epochs=-1)
    run.fit(model, loader(), ckpt_path=ckpt, weights_only=True)
    return run, model.drawn


@pytest.mark.parametrize("steps", [1, 4])
def test_a_resumed_run_draws_the_numbers_of_an_uninterrupted_one(steps, tmp_path):
    _, expected = drawn(8)
    torch.manual_seed(0)
    run, first = drawn(steps)
    run.save_checkpoint(tmp_path / "first.ckpt")
    torch.manual_seed(5)
    _, second = drawn(8, tmp_path / "first.ckpt")
    assert first + second == expected
    assert len(set(expected)) == 8
