"""``python -m benchmarks.encoder``: ways of fine-tuning a pretrained sentence encoder.

The encoder, the task and the training are those of ``examples/encoder.py``. LoRA and another orthogonal fine-tuning
come from peft. Each way starts from the same trained read-out. Its learning rate is searched with seed 0, by the
accuracy on sentences for validation; the other seeds train at the best rate and are tested on other sentences. A row of
the CSV file is a run, and runs whose row is there already are not repeated. ``--print`` prints the table of what is
there, and ``--race`` the time of a step.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything
from torch import Tensor
from transformers import BertModel

from benchmarks.race import Race, race
from benchmarks.runner import read
from examples.encoder import LOWER, PROJECTIONS, Classifier, accuracy, encoded, fit, pretrained, rotate, sentences
from projunn_lightning import Projector, ProjUNN

SPLITS = {"train": (0, 2000), "val": (2000, 3000), "test": (3000, 5000)}
STEPS, BATCH = 150, 16
RATES = (3e-4, 1e-3, 1e-4, 3e-3)
COLUMNS = ("contestant", "rate", "seed", "split", "numbers", "accuracy", "moved")

Settings = dict[str, Any] | None
"""The settings of ProjUNN, or None where nothing is orthogonal."""


def rotations(encoder: BertModel, blocks: int = 1, **settings: Any) -> Settings:
    """Orthogonal matrices in front of the projections, kept orthogonal by projUNN."""
    rotate(encoder, blocks)
    return settings


def lora(encoder: BertModel, rank: int) -> Settings:
    """Low-rank matrices, which are added to the projections."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets(encoder)), encoder)
    return None


def cayley(encoder: BertModel, block: int) -> Settings:
    """The orthogonal fine-tuning of peft: blocks, each made from its parameters by the Cayley transform."""
    from peft import OFTConfig, inject_adapter_in_model

    inject_adapter_in_model(OFTConfig(r=0, oft_block_size=block, target_modules=targets(encoder)), encoder)
    return None


def everything(encoder: BertModel) -> Settings:
    """All weights of the upper layers."""
    encoder.encoder.layer[LOWER:].requires_grad_(True)
    return None


READOUT = "read-out alone"
CONTESTANTS: dict[str, Callable[[BertModel], Settings]] = {
    READOUT: lambda encoder: None,
    "R at rank 8": rotations,
    "LoRA of rank 192": partial(lora, rank=192),
    "R in 12 blocks": partial(rotations, blocks=12),
    "LoRA of rank 16": partial(lora, rank=16),
    "all weights": everything,
    'R at rank="full"': partial(rotations, rank="full"),
    "OFT of peft, 12 blocks": partial(cayley, block=32),
}
"""What is done to the frozen encoder. LoRA of rank 192 has as many numbers as R, and of rank 16 as R in blocks."""


def targets(encoder: BertModel) -> list[str]:
    """The names of the projections that are adapted."""
    names = [name for name, _ in encoder.named_modules() if name.endswith(PROJECTIONS)]
    return [name for name in names if int(name.split(".")[2]) >= LOWER]


def numbers(encoder: BertModel) -> int:
    """The number of trained numbers."""
    return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)


@torch.no_grad()
def singular_values(encoder: BertModel, names: list[str]) -> Tensor:
    """The singular values of the adapted projections, whose weights are read off their outputs."""
    size = encoder.config.hidden_size
    layers = [encoder.get_submodule(name) for name in names]
    return torch.linalg.svdvals(torch.stack([layer(torch.eye(size)) - layer(torch.zeros(1, size)) for layer in layers]))


class Runs:
    """The encoded sentences, a trained read-out for each seed, and runs that start from it."""

    def __init__(self) -> None:
        texts, labels = sentences()
        encoder = pretrained()
        self.data = {name: encoded(encoder, texts[a:b], labels[a:b]) for name, (a, b) in SPLITS.items()}
        self.readouts: dict[int, dict[str, Any]] = {}

    def start(self, seed: int, rate: float) -> Classifier:
        """A frozen encoder with the trained read-out of a seed."""
        seed_everything(seed, verbose=False)
        model = Classifier(pretrained(), rate)
        if seed not in self.readouts:
            fit(model, self.data["train"], STEPS, batch_size=BATCH)
            self.readouts[seed] = model.readout.state_dict()
        model.readout.load_state_dict(self.readouts[seed])
        seed_everything(seed, verbose=False)
        return model

    def run(self, contestant: str, rate: float, seed: int) -> dict[str, Any]:
        """Train from the trained read-out, and return a row."""
        model = self.start(seed, rate)
        names = targets(model.encoder)
        before = singular_values(model.encoder, names)
        settings = CONTESTANTS[contestant](model.encoder)
        callbacks = [] if settings is None else [ProjUNN(**settings)]
        trainer = fit(model, self.data["train"], STEPS, *callbacks, batch_size=BATCH)
        split = "test" if seed else "val"
        right = accuracy(trainer, model, self.data[split])
        moved = (singular_values(model.encoder, names) - before).abs().max().item()
        figures = (numbers(model.encoder), f"{right:.4f}", f"{moved:.1e}")
        return dict(zip(COLUMNS, (contestant, rate, seed, split, *figures), strict=True))


def best_rate(rows: list[dict[str, str]], contestant: str) -> float:
    """The rate with the highest accuracy in the search."""
    searched = [row for row in rows if row["contestant"] == contestant and row["split"] == "val"]
    return float(max(searched, key=lambda row: float(row["accuracy"]))["rate"])


def planned(contestants: list[str], seeds: int, path: Path) -> Iterator[tuple[str, float, int]]:
    """First the search, and then the seeds from 1 on at the best rates."""
    for rate in RATES:
        for contestant in contestants:
            if contestant != READOUT or rate == RATES[0]:  # the read-out has a rate of its own
                yield contestant, rate, 0
    for seed in range(1, 1 + seeds):
        for contestant in contestants:
            yield contestant, best_rate(read(path), contestant), seed


def append(path: Path, row: dict[str, Any]) -> None:
    """Write a row at the end of a CSV file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[dict[str, str]]) -> Iterator[str]:
    """A line for each contestant: trained numbers, rate, accuracy on test sentences, change of singular values."""
    for contestant in CONTESTANTS:
        tested = [row for row in rows if row["contestant"] == contestant and row["split"] == "test"]
        found = [100 * float(row["accuracy"]) for row in tested]
        if found:
            yield (
                f"{contestant:24s} {int(tested[0]['numbers']):9,d} rate {float(tested[0]['rate']):<7.0e} "
                f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f}, {len(found)} seeds)  "
                f"singular values moved by {max(float(row['moved']) for row in tested):.0e}"
            )


def step(contestant: str, batch: list[Tensor]) -> Callable[[], None]:
    """A training step without Lightning."""
    model = Classifier(pretrained(), 1e-4)
    settings = CONTESTANTS[contestant](model.encoder)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    if settings is not None:
        Projector(model, **settings).attach(optimizer)
    states, mask, labels = batch

    def once() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(states, mask), labels).backward()
        optimizer.step()

    return once


def times(rounds: int = 15) -> Race:
    """The time of a step of each contestant."""
    texts, labels = sentences()
    batch = list(encoded(pretrained(), texts[:BATCH], labels[:BATCH]).tensors)
    steps = {contestant: step(contestant, batch) for contestant in CONTESTANTS}
    return race("a step of fine-tuning", steps, reference="LoRA of rank 16", rounds=rounds)


def main() -> None:
    """Run what is missing, or print what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder", description=__doc__)
    parser.add_argument("contestants", nargs="*", metavar="contestant", help=f"some of {', '.join(CONTESTANTS)} (all)")
    parser.add_argument("--seeds", type=int, default=5, help="the number of seeds after the search")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encoder.csv"))
    parser.add_argument("--print", action="store_true", help="print the table of the output instead of running")
    parser.add_argument("--race", action="store_true", help="time a step of each contestant instead of running")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.print:
        print(*table(read(options.output)), sep="\n")
        return
    if options.race:
        result = times()
        for name, found in result.times.items():
            print(f"{name:24s} {statistics.median(found):7.0f} ms  {result.ratio(name):.2f} times {result.reference}")
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    runs = Runs()
    for plan in planned(options.contestants or list(CONTESTANTS), options.seeds, options.output):
        done = {(row["contestant"], float(row["rate"]), int(row["seed"])) for row in read(options.output)}
        if plan not in done:
            row = runs.run(*plan)
            append(options.output, row)
            print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
