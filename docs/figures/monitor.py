"""Draw monitor.png, the picture of a healthy run: ``python docs/figures/monitor.py``, two minutes on one core.

Two recurrent networks, which differ only in the constraint, learn copying memory over 100 steps. The picture shows the
eigenvalues and the gradients that UnitarityMonitor shows in TensorBoard, for both runs side by side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from matplotlib.figure import Figure
from torch.nn.functional import one_hot

from projunn_lightning import CopyingMemory, ProjUNN, SequenceModel, UnitarityMonitor

PICTURE = Path(__file__).with_suffix(".png")
DELAY = 100
RUNS = {"projUNN": "projunn", "plain RNN": "rnn"}


def train(rnn: str, steps: int) -> tuple[SequenceModel, CopyingMemory]:
    """Train a recurrent layer, and return the model and its data."""
    seed_everything(0, verbose=False)
    data = CopyingMemory(DELAY, batch_size=32, val_size=128, test_size=256)
    model = SequenceModel(10, 9, 128, rnn=rnn, ignore_index=8)
    callbacks = [ProjUNN(lr_divider=32), UnitarityMonitor()] if rnn == "projunn" else [UnitarityMonitor()]
    trainer = Trainer(max_steps=steps, limit_val_batches=0, callbacks=callbacks, enable_checkpointing=False)
    trainer.fit(model, data)
    loss = trainer.test(model, data, verbose=False)[0]["test/loss"] / data.baseline_loss
    print(f"{rnn}: after {steps} steps {100 * loss:.1f} % of the baseline")
    return model, data


def gradient_norms(model: SequenceModel, data: CopyingMemory) -> np.ndarray:
    """The norm of the gradient of the loss with respect to the input, at each time step."""
    inputs, targets = next(iter(data.test_dataloader()))
    features = one_hot(inputs, 10).float().requires_grad_()
    (gradient,) = torch.autograd.grad(model.loss(model.train()(features), targets), features)
    return torch.linalg.vector_norm(gradient, dim=(0, 2)).numpy()


def main(steps: int = 1000, picture: Path = PICTURE) -> None:
    """Train both networks, and draw them."""
    torch.set_num_threads(1)
    figure = Figure((9, 3.4), dpi=100, layout="constrained")
    *circles, norms = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    around = np.linspace(0, 2 * np.pi, 200)
    for axes, (name, rnn) in zip(circles, RUNS.items(), strict=True):
        model, data = train(rnn, steps)
        eigenvalues = torch.linalg.eigvals(model.rnn.weight_hh_l0.detach()).numpy()
        gradient = gradient_norms(model, data)
        print(f"gradient {gradient[0]:.1e} at the first step, {gradient[-1]:.1e} at the last")
        axes.plot(np.cos(around), np.sin(around), color="0.8", linewidth=1)
        axes.plot(eigenvalues.real, eigenvalues.imag, ".", markersize=4)
        axes.set(title=f"{name}: eigenvalues", xlabel="real", aspect="equal")
        axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
        norms.plot(range(1, len(gradient) + 1), gradient, label=name)
    circles[0].set_ylabel("imaginary")
    norms.set(title="norm of the input's gradient", xlabel="time step", yscale="log")
    norms.grid(alpha=0.3)
    norms.legend()
    figure.savefig(picture)


if __name__ == "__main__":
    main()
