"""The copying memory task."""

import math

import pytest
import torch
import torch.nn.functional as F

from projunn_lightning import CopyingMemory, ProjUNNError
from projunn_lightning.data.copying import copying_memory


@pytest.mark.parametrize(("delay", "length", "alphabet"), [(100, 10, 8), (1, 1, 2), (3, 5, 4)])
def test_is_the_published_task(delay, length, alphabet):
    inputs, targets = copying_memory(delay, length, alphabet, 500, torch.Generator().manual_seed(0))
    blank, signal = alphabet, alphabet + 1
    assert inputs.shape == targets.shape == (500, delay + 2 * length)
    assert inputs.dtype == targets.dtype == torch.int64
    assert set(inputs[:, :length].unique().tolist()) == set(range(alphabet))
    assert (inputs[:, length : length + delay - 1] == blank).all()
    assert (inputs[:, length + delay - 1] == signal).all()
    assert (inputs[:, length + delay :] == blank).all()
    assert (targets[:, : length + delay] == blank).all()
    assert torch.equal(targets[:, -length:], inputs[:, :length])


def test_the_baseline_is_the_loss_of_the_best_guess_without_memory():
    data = CopyingMemory(delay=30, memory_length=10, alphabet_size=8)
    _, targets = data.dataset("test").__getitems__(range(100))
    logits = torch.full((100, 50, 9), -1e9)
    logits[:, :40, 8] = 0
    logits[:, 40:, :8] = 0
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item(), data.baseline_loss)
    assert data.baseline_loss == 10 * math.log(8) / 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 0}, "delay must be 1 or more, found 0"),
        ({"memory_length": 0}, "memory_length must be 1 or more, found 0"),
        ({"alphabet_size": 1}, "alphabet_size must be 2 or more, found 1"),
    ],
    ids=str,
)
def test_refuses_settings_that_cannot_work(options, message):
    with pytest.raises(ProjUNNError, match=message):
        CopyingMemory(**options)
