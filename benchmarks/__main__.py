"""``python -m benchmarks [NAME ...]``: measure the figures of the README on this machine."""

from __future__ import annotations

import argparse
import logging
import platform
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import layers, products, report, scaling, training, update
from benchmarks.race import Race

RACES: dict[str, Callable[[str], list[Race]]] = {
    "products": products.products,
    "update": update.updates,
    "bookkeeping": lambda device: [update.bookkeeping(device)],
    "linear": layers.linear,
    "rnn": lambda device: [layers.recurrence(device, size) for size in (170, 512)],
    "convolution": layers.convolution,
    "lightning": lambda device: [training.overhead(device, delay, batch) for delay, batch in ((200, 128), (1, 2))],
}


def growth(options: argparse.Namespace, console: Console) -> None:
    times = update.growth(options.device)
    report.show_growth(times, console)
    report.write_growth(times, options.output / "growth.csv")
    if find_spec("matplotlib"):
        report.draw_growth(times, options.output / "growth.png")


def costs(options: argparse.Namespace, console: Console) -> None:
    found = scaling.scaling()
    report.show_scaling(found, console)
    report.write_scaling(found, options.output / "scaling.csv")


SWEEPS: dict[str, Callable[[argparse.Namespace, Console], None]] = {"growth": growth, "scaling": costs}
ALL = [*RACES, *SWEEPS]


def main() -> None:
    """Run the chosen benchmarks, print the results, and write CSV files and a plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("which", nargs="*", metavar="which", help=f"some of {', '.join(ALL)} (default: all)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    parser.add_argument("--threads", type=int, help="number of torch's threads (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    which = options.which or ALL
    if unknown := set(which) - set(ALL):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}, expected some of {', '.join(ALL)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    name = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    console.print(f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads", highlight=False)
    if missing := [
        package for package in ("pogo", "geotorch", "deel", "orthogonium", "matplotlib") if not find_spec(package)
    ]:
        console.print(f"without {', '.join(missing)}: pip install -c constraints.txt -e '.[benchmarks]'")
    for key in which:
        if key in SWEEPS:
            SWEEPS[key](options, console)
            continue
        races = RACES[key](options.device)
        for race in races:
            report.show(race, console)
        report.write(races, options.output / f"{key}.csv")


def processor() -> str:
    """The name of the processor, and the instructions that torch uses on it."""
    path = Path("/proc/cpuinfo")  # platform.processor() names the architecture only
    lines = path.read_text().splitlines() if path.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name or platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


if __name__ == "__main__":
    main()
