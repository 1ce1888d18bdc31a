"""The table of the model's layers at the start of ``fit``."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count, summarize
from rich import box, get_console
from rich.table import Table
from torch import nn
from torchmetrics import Metric, MetricCollection


class ModelTable(ModelSummary):
    """Print the layers of the model, as Lightning does, but only rows and columns that say something.

    Metrics are no layers and have no row. The FLOPs and the sizes are shown if the model has an
    ``example_input_array``, without which they are not known.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        summary = summarize(pl_module)  # runs the model on the example input, and so must run on all processes
        if not trainer.is_global_zero:
            return
        columns = {
            "Name": summary.layer_names,
            "Type": summary.layer_types,
            "Params": [_count(number) for number in summary.param_nums],
            "Mode": ["train" if training else "eval" for training in summary.training_modes],
        }
        if pl_module.example_input_array is not None:
            flops = [sum(counts.values()) for counts in summary.flop_counts.values()]
            if any(flops):
                columns["FLOPs"] = [_count(number) for number in flops]
            columns["In sizes"] = [str(size) for size in summary.in_sizes]
            columns["Out sizes"] = [str(size) for size in summary.out_sizes]
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 1))
        for column in columns:
            table.add_column(column, justify="right" if column in ("Params", "FLOPs") else "left", overflow="fold")
        for name, *row in zip(*columns.values(), strict=True):
            if not _is_metric(pl_module.get_submodule(name)):
                table.add_row(name, *row)
        if own := summary.total_parameters - summary.total_layer_params:
            table.add_row("(parameters of the model itself)", "", _count(own))
        get_console().print(table)
        frozen = summary.total_parameters - summary.trainable_parameters
        line = f"{_count(summary.total_parameters)} parameters, {summary.model_size:,.3g} MB"
        get_console().print(line + (f"; {_count(frozen)} of them are not trained" if frozen else ""), highlight=False)


def _count(number: int) -> str:
    return str(get_human_readable_count(number)).strip()


def _is_metric(module: nn.Module) -> bool:
    """Whether a module is a metric, or a container that holds metrics only."""
    children = list(module.children())
    holds_metrics = isinstance(module, (nn.ModuleDict, nn.ModuleList)) and children
    return isinstance(module, (Metric, MetricCollection)) or bool(holds_metrics and all(map(_is_metric, children)))
