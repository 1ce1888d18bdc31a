"""The table of layers at the start of ``projunn fit``."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torchmetrics import MeanAbsoluteError

from projunn_lightning.cli.model_table import ModelTable
from tests.support.commands import changed, run


def rows(out):
    return [line.split() for line in out.splitlines() if line.split()]


def test_it_has_a_row_for_each_layer_and_none_for_a_metric():
    out = run("fit", changed(trainer={"enable_model_summary": True}))
    assert ["rnn", "UnitaryRNN", "120", "train"] in rows(out)
    assert ["readout", "Linear", "45", "train"] in rows(out)
    assert "165 parameters" in out
    assert "metrics" not in out
    assert "FLOPs" not in out


class Example(LightningModule):
    def __init__(self):
        super().__init__()
        self.example_input_array = torch.ones(2, 3)
        self.linear = nn.Linear(3, 4)
        self.frozen = nn.Linear(4, 1).requires_grad_(requires_grad=False)
        self.scale = nn.Parameter(torch.ones(7))
        self.errors = nn.ModuleList([MeanAbsoluteError()])

    def forward(self, x):
        return self.frozen(self.linear(x))


def test_flops_and_sizes_are_shown_where_an_example_input_tells_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    ModelTable().on_fit_start(Trainer(accelerator="cpu", logger=False), Example())
    table = rows(capsys.readouterr().out)
    assert table[0] == ["Name", "Type", "Params", "Mode", "FLOPs", "In", "sizes", "Out", "sizes"]
    assert ["linear", "Linear", "16", "train", "48", "[2,", "3]", "[2,", "4]"] in table
    assert ["(parameters", "of", "the", "model", "itself)", "7"] in table
    assert "28 parameters, 0.000112 MB; 5 of them are not trained" in " ".join(table[-1])
    assert not any("errors" in row for row in table)
