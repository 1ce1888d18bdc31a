"""The search of settings on permuted MNIST."""

import math

import pytest
import torch

from benchmarks import search


class FewImages(search.Images):
    """Short sequences of two classes: noise around -1 or around 1."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        classes = torch.arange(64) % 2
        images = 2.0 * classes[:, None, None] - 1 + 0.1 * torch.randn(64, 8, 1, generator=generator)
        self.train = self.val = images, classes
        self._prepare = lambda images, _: images


SETTINGS = {"optimizer": "adam", "lr": 3e-2, "divider": 3.0, "schedule": "one-cycle", "clip": math.inf}
UNGATED = {"init": "cayley", "bias": 0.1, "input": 1.0}


@pytest.mark.parametrize(
    ("layer", "own"), [("projunn", {**UNGATED, "method": "full"}), ("scornn", UNGATED), ("lstm", {})]
)
def test_a_run_of_each_kind_of_layer_learns(layer, own):
    *_, accuracy = search.train(FewImages(), layer, {**SETTINGS, **own}, hidden=8, epochs=40, seed=0)
    assert accuracy == 1


def test_a_search_goes_on_where_it_ended_and_prints_the_best_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "Images", FewImages)
    monkeypatch.setattr("sys.argv", ["search", str(tmp_path / "runs.log"), "--hidden", "8", "--layer", "gru"])
    for runs in (1, 2):
        clock = iter([0, 0, math.inf])  # the beginning, the first run, and no second one
        monkeypatch.setattr(search, "monotonic", lambda clock=clock: next(clock))
        search.main()
        assert len(capsys.readouterr().out.splitlines()) == runs
