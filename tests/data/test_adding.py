"""The adding problem."""

import pytest
import torch

from projunn_lightning import AddingProblem, ProjUNNError
from projunn_lightning.data.adding import adding_problem


@pytest.mark.parametrize("length", [2, 3, 200])
def test_is_the_published_task(length):
    inputs, targets = adding_problem(length, 500, torch.Generator().manual_seed(0))
    assert inputs.shape == (500, length, 2)
    assert targets.shape == (500, 1)
    assert inputs.dtype == targets.dtype == torch.float32
    numbers, marks = inputs.unbind(-1)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    half = length // 2
    assert (marks[:, :half].sum(1) == 1).all()
    assert (marks[:, half:].sum(1) == 1).all()
    assert set(marks.unique().tolist()) <= {0.0, 1.0}
    if length < 10:
        assert (marks.sum(0) > 0).all()  # every step is marked in some sample
    torch.testing.assert_close(targets, (numbers * marks).sum(1, keepdim=True))


def test_the_baseline_is_the_error_of_always_answering_one():
    data = AddingProblem(length=10)
    _, targets = data.dataset("test").__getitems__(range(10_000))
    assert abs((targets - 1).square().mean() - data.baseline_loss) < 0.005


def test_refuses_a_length_below_two():
    with pytest.raises(ProjUNNError, match="length must be 2 or more, found 1"):
        AddingProblem(length=1)
