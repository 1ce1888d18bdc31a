"""Draw copying.png from the logs of ``projunn compare configs/compare/copying_200``.

The command is ``python docs/figures/copying.py [comparisons/copying_200]``.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PICTURE = Path(__file__).with_suffix(".png")
RNNS = ["projunn", "scornn", "rgd", "lstm", "gru", "rnn"]
BASELINE = 0.0945  # 10 ln 8 / (200 + 20)


def losses(folder: Path) -> tuple[list[int], list[float]]:
    """The steps and validation losses of a recurrent layer, joined over its runs if it was interrupted."""
    points: dict[int, float] = {}
    for path in sorted(folder.rglob("events*")):
        board = EventAccumulator(str(path)).Reload()
        if "val/loss" in board.Tags()["scalars"]:
            points |= {event.step + 1: event.value for event in board.Scalars("val/loss")}
    return list(points), list(points.values())


def main(home: Path, picture: Path = PICTURE) -> None:
    """Draw the losses of all layers, which are in folders of their names."""
    figure = Figure((7, 3.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for rnn in RNNS:
        style = {"linewidth": 2.5, "color": "black", "zorder": 3} if rnn == "projunn" else {"linewidth": 1.2}
        axes.plot(*losses(home / rnn), label=rnn, **style)
    axes.axhline(BASELINE, color="0.6", linestyle=":", linewidth=1)
    axes.text(2000, BASELINE * 1.15, "baseline", color="0.4", ha="right")
    axes.set(yscale="log", xlabel="step of 32 samples", ylabel="validation loss", title="Copying over 200 steps")
    axes.grid(alpha=0.2)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "comparisons/copying_200"))
