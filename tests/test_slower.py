"""The learning rate of some weights of the baselines."""

import pytest
import torch
from lightning.pytorch import seed_everything

from benchmarks.slower import SlowerWeights
from tests.support.fits import Net, loader, trainer


class Grouped(Net):
    """The second layer has a learning rate of its own."""

    def configure_optimizers(self):
        slow = list(self.second.parameters())
        others = [p for name, p in self.named_parameters() if not name.startswith("second.")]
        return torch.optim.Adam([{"params": others}, {"params": slow, "lr": 0.02 / 8}], lr=0.02)


def fitted(model_class, *callbacks, **options):
    seed_everything(0)
    model = model_class(**options)
    trainer(*callbacks).fit(model, loader())
    return list(model.parameters())


def test_divided_updates_are_those_of_a_smaller_learning_rate():
    slower = fitted(Net, SlowerWeights("second.*", 8), optimizer=torch.optim.Adam, lr=0.02)
    torch.testing.assert_close(slower, fitted(Grouped))
    assert not torch.equal(slower[4], fitted(Net, optimizer=torch.optim.Adam, lr=0.02)[4])


def test_a_pattern_without_a_parameter_is_refused():
    with pytest.raises(ValueError, match="no parameter matches"):
        fitted(Net, SlowerWeights("third.*", 8))
