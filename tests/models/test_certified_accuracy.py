import pytest
import torch

from projunn_lightning import CertifiedAccuracy


def test_counts_right_classes_that_lead_by_more_than_the_radius_times_the_square_root_of_two():
    logits = torch.tensor([[1.0, 0.0, 0.2], [0.4, 1.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    target = torch.tensor([0, 1, 0, 2])
    for radius, expected in ((0.0, 3 / 4), (0.4, 2 / 4), (0.6, 1 / 4), (3.0, 0.0)):
        assert CertifiedAccuracy(radius)(logits, target) == pytest.approx(expected)


def test_adds_up_batches():
    metric = CertifiedAccuracy(0.5)
    metric.update(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    metric.update(torch.tensor([[2.0, 0.0], [0.0, 0.1], [0.0, 2.0]]), torch.tensor([1, 1, 1]))
    assert metric.compute() == 2 / 4


def test_its_radius_is_36_over_255_by_default():
    assert CertifiedAccuracy().radius == 36 / 255


def test_refuses_a_negative_radius():
    with pytest.raises(ValueError, match=r"radius must be a finite number of 0 or more, found -1\.0"):
        CertifiedAccuracy(-1.0)
