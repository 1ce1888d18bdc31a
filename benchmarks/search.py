"""``python -m benchmarks.search FILE``: search the settings of a run on permuted MNIST, by short runs.

Optuna proposes settings from those of the runs so far, and a run that is behind the median of the others after an epoch
is stopped. The file holds the runs. Several processes may share it, and a search goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor, nn

from benchmarks.runner import OPTIMIZERS
from benchmarks.study import CONTESTANTS, Reader
from projunn_lightning import Projector
from projunn_lightning.data import PixelSequence
from projunn_lightning.nn import RNNS, make_rnn

METHODS = {"published": {"sampler": "lsi", "rank": 1, "retraction": "polar"}} | {
    name: CONTESTANTS[name].settings or {} for name in ("tangent 8", "skew 8, 0.9", "full", "skew full")
}
GATED = ("lstm", "gru")
BATCH = 128


class Images:
    """The images of permuted MNIST as sequences. The last 5,000 images for training are for validation."""

    def __init__(self) -> None:
        task = PixelSequence()
        task.setup()
        self._prepare = task.preparation("train")
        (images, classes), _ = (task.images[split] for split in ("train", "test"))
        self.train, self.val = (images[:-5000], classes[:-5000]), (images[-5000:], classes[-5000:])

    def batches(self, of: tuple[Tensor, Tensor], order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches ``(B, 784, 1)`` and their classes in an order."""
        for chosen in order.split(size):
            yield self._prepare(of[0][chosen], torch.Generator()), of[1][chosen]


def settings(trial: optuna.Trial, layer: str) -> dict[str, Any]:
    """The settings of a run of a recurrent layer, as Optuna proposes them."""
    own: dict[str, Any] = {}
    if layer == "projunn":
        own["method"] = trial.suggest_categorical("method", list(METHODS))
    if layer not in GATED:
        own["init"] = trial.suggest_categorical("init", ["henaff", "cayley", "identity", "haar_so"])
        own["bias"] = trial.suggest_categorical("bias", [0.0, 0.01, 0.1])
        own["input"] = trial.suggest_float("input", 0.1, 2, log=True)
    return own | {
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "rmsprop"]),
        "lr": trial.suggest_float("lr", 3e-4, 3e-2, log=True),
        "divider": trial.suggest_float("divider", 0.3, 30, log=True),
        "schedule": trial.suggest_categorical("schedule", ["cosine", "one-cycle"]),
        "clip": trial.suggest_categorical("clip", [math.inf, 1.0, 0.1]),
    }


def train(images: Images, layer: str, chosen: dict[str, Any], hidden: int, epochs: int, seed: int) -> Iterator[float]:
    """Train, and yield the validation accuracy after each epoch. The divider is that of the recurrent matrices."""
    torch.manual_seed(seed)
    init = {} if layer in GATED else {"init": chosen["init"]}
    model = Reader(lambda inputs, size: make_rnn(layer, inputs, size, batch_first=True, **init), 1, hidden, 10)
    if layer not in GATED:
        nn.init.uniform_(model.rnn.bias_l0, -chosen["bias"], chosen["bias"])  # type: ignore[arg-type]
        nn.init.normal_(model.rnn.weight_ih_l0, std=chosen["input"])  # type: ignore[arg-type]
    recurrent = {name: "weight_hh" in name or ".maps." in name for name, _ in model.named_parameters()}
    parameters = [[p for name, p in model.named_parameters() if recurrent[name] is part] for part in (True, False)]
    rates = [chosen["lr"] / chosen["divider"], chosen["lr"]]
    groups = [{"params": each, "lr": rate} for each, rate in zip(parameters, rates, strict=True)]
    optimizer = OPTIMIZERS[chosen["optimizer"]](groups)
    steps = epochs * -(-len(images.train[0]) // BATCH)
    if chosen["schedule"] == "cosine":
        schedule: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, cycle_momentum=False)
    if layer == "projunn":
        Projector(model, seed=seed, **METHODS[chosen["method"]]).attach(optimizer)
    for _ in range(epochs):
        for x, y in images.batches(images.train, torch.randperm(len(images.train[0])), BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x)[:, -1], y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), chosen["clip"])
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            val = images.batches(images.val, torch.arange(len(images.val[0])), 1000)
            yield sum(int((model(x)[:, -1].argmax(1) == y).sum()) for x, y in val) / len(images.val[0])


def main() -> None:
    """Run the search until the time is over, and print the best runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("file", type=Path, help="the file of the runs")
    parser.add_argument("--minutes", type=float, default=60.0, help="no run begins after this time (default: 60)")
    parser.add_argument("--epochs", type=int, default=3, help="the epochs of a run (default: 3)")
    parser.add_argument("--hidden", type=int, default=116, help="the size of the state (default: 116)")
    parser.add_argument("--layer", choices=list(RNNS), default="projunn", help="the recurrent layer (default: projunn)")
    options = parser.parse_args()
    images, end = Images(), monotonic() + 60 * options.minutes
    study = optuna.create_study(
        study_name=f"permuted MNIST, {options.layer}, N = {options.hidden}, {options.epochs} epochs",
        storage=JournalStorage(JournalFileBackend(str(options.file))),
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True, n_startup_trials=8),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        direction="maximize",
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        accuracy = 0.0
        chosen = settings(trial, options.layer)
        accuracies = train(images, options.layer, chosen, options.hidden, options.epochs, seed=0)
        for epoch, accuracy in enumerate(accuracies):
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    while monotonic() < end:
        study.optimize(objective, n_trials=1)
    done = [trial for trial in study.trials if trial.value is not None]
    for trial in sorted(done, key=lambda each: -(each.value or 0))[:10]:
        print(f"{100 * (trial.value or 0):.2f} %  {trial.params}")


if __name__ == "__main__":
    main()
