"""The TensorBoard logger of the command: TensorBoard opens on the losses, and HParams shows what has run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

LAST = "z_"
"""What a group that TensorBoard is to show after ``train`` and ``val`` begins with."""


class BoardLogger(TensorBoardLogger):
    """A TensorBoardLogger whose page opens on the groups ``train`` and ``val``.

    TensorBoard sorts the groups by name and opens the first two. The learning rates (``lr-...``) are therefore shown in
    the group ``train``, and the results, which are single points, in the groups ``z_test`` and ``z_result``. The number
    of the epoch is not shown. The step is the axis of all curves. :meth:`log_result` writes the page HParams, which
    therefore has no ``hp_metric`` of -1.

    Args:
        args: positional arguments of TensorBoardLogger.
        options: its keyword arguments. ``flush_secs`` is at most 5.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        # An interruption by Ctrl-C can make the writer's thread miss a message. The end of the run then waits for the
        # thread's next flush, which torch's default lets come every two minutes.
        often = {"flush_secs": min(5, options.get("flush_secs", 5))}
        super().__init__(*args, **options | often | {"default_hp_metric": False})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({shown(name): value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def log_result(self, options: Mapping[str, Any], names: Iterable[str]) -> None:
        """Write the page HParams: the options of the run, and the metrics that are logged already.

        TensorBoardLogger.log_hyperparams would log the metrics a second time.

        Args:
            options: the options by name. None stands for an option that is not set.
            names: the names of the metrics.
        """
        from torch.utils.tensorboard.summary import hparams

        values = {name: v if isinstance(v, (bool, int, float, str)) else str(v) for name, v in options.items()}
        metrics = dict.fromkeys(map(shown, names), 0.0)  # only the names are written
        for summary in hparams(values, metrics):
            self.experiment._get_file_writer().add_summary(summary)
        self.save()


def shown(name: str) -> str:
    """The name under which TensorBoard shows a metric."""
    if name.startswith("lr-"):
        return f"train/{name}"
    return f"{LAST}{name}" if name.startswith(("test/", "result/")) else name
