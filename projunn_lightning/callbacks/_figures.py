"""The figures that TensorBoard shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def spectrum(eigenvalues: Tensor, title: str) -> Figure:
    """A plot of eigenvalues ``(n,)`` in the complex plane. Those of a unitary matrix lie on the unit circle."""
    figure, axes = _figure(4, 4)
    around = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(around), np.sin(around), color="0.8", linewidth=1)
    axes.plot(eigenvalues.real, eigenvalues.imag, ".", markersize=4, alpha=0.7)
    axes.set_aspect("equal")
    axes.set(title=title, xlabel="real", ylabel="imaginary")
    return figure


def gradient_over_time(norms: Tensor, title: str) -> Figure:
    """A plot of gradient norms ``(T,)`` against the time step, on a logarithmic scale of two decades or more."""
    figure, axes = _figure(5, 3)
    axes.plot(range(1, len(norms) + 1), norms)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:  # a small change is to look small
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 10, middle * 10)
    axes.grid(alpha=0.3)
    axes.set(title=title, xlabel="time step", ylabel="norm of the input's gradient")
    return figure


def draw_once() -> None:
    """Import matplotlib and draw one figure. The first figure takes a second, which no training step is to spend."""
    import matplotlib.pyplot  # noqa: F401  # as TensorBoard's writer does
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(gradient_over_time(torch.ones(2), "")).draw()


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=100)
    figure.subplots_adjust(left=0.18, right=0.96, bottom=0.16, top=0.9)  # a layout engine would double the time
    return figure, figure.subplots()
