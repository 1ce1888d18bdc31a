"""Draw lightning_module.png, the picture of that example: ``python -m docs.figures.lightning_module``, half a minute.

The module of the example is trained with the callback and without it, on the same sequences.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from matplotlib.figure import Figure

from examples.lightning_module import CLASSES, Recall, sequences
from projunn_lightning import ProjUNN

PICTURE = Path(__file__).with_suffix(".png")


class Losses(Callback):
    """Keeps the loss of each training step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(float(outputs["loss"]))


def losses(steps: int, *callbacks: Callback) -> list[float]:
    """Train the module, and return the loss of each step."""
    seed_everything(0, verbose=False)
    kept = Losses()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    model = Recall()
    Trainer(max_steps=steps, callbacks=[*callbacks, kept], **quiet).fit(model, sequences(64 * steps))
    return kept.values


def main(steps: int = 300, picture: Path = PICTURE) -> None:
    """Train with the constraint and without it, and draw the losses."""
    figure = Figure((7, 3), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.plot(losses(steps, ProjUNN("rnn.weight_hh_l*", lr_divider=8)), label="with ProjUNN")
    axes.plot(losses(steps), label="without it")
    axes.axhline(math.log(CLASSES), color="0.6", linestyle=":", linewidth=1, label="chance")
    axes.set(ylim=(0, None), xlabel="step", ylabel="training loss", title="A symbol remembered over 100 steps")
    axes.grid(alpha=0.2)
    axes.legend()
    figure.savefig(picture)


if __name__ == "__main__":
    main()
