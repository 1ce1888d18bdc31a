"""Tables, CSV files and the plot of the results."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.race import Race


def show(race: Race, console: Console) -> None:
    """Print the table of a race."""
    table = Table("", "min ms", "median ms", "max ms", f"x {race.reference}", title=race.title, title_justify="left")
    for name, times in race.times.items():
        row = (min(times), statistics.median(times), max(times), race.ratio(name))
        table.add_row(name, *(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in row))
    console.print(table)


def write(races: list[Race], path: Path) -> None:
    """Write all races to one CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "method", "min ms", "median ms", "max ms", "reference", "ratio"])
        for race in races:
            for name, times in race.times.items():
                row = [min(times), statistics.median(times), max(times), race.reference, race.ratio(name)]
                writer.writerow([race.title, name, *row])


def slope(times: dict[int, float]) -> float:
    """The exponent of N in the time, by a least-squares fit of the logarithms."""
    return statistics.linear_regression([math.log(n) for n in times], [math.log(t) for t in times.values()]).slope


def show_growth(growth: dict[str, dict[int, float]], console: Console) -> None:
    """Print the times of an update for each N, and the exponents."""
    sizes = sorted({size for times in growth.values() for size in times})
    table = Table("", *(f"N = {size}" for size in sizes), "exponent", title="update, ms", title_justify="left")
    for name, times in growth.items():
        cells = [f"{times[size]:.3g}" if size in times else "-" for size in sizes]
        table.add_row(name, *cells, f"{slope(times):.2f}" if len(times) > 1 else "-")
    console.print(table)


def write_growth(growth: dict[str, dict[int, float]], path: Path) -> None:
    """Write the times of an update for each N to a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "N", "ms"])
        writer.writerows([name, size, time] for name, times in growth.items() for size, time in times.items())


def draw_growth(growth: dict[str, dict[int, float]], path: Path) -> None:
    """Draw the times of an update against N on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for name, times in growth.items():
        label = f"{name}: N^{slope(times):.2f}" if len(times) > 1 else name
        axes.loglog(list(times), list(times.values()), "o-", label=label)
    sizes = sorted({size for times in growth.values() for size in times})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="N", ylabel="milliseconds", title="Update of an N x N orthogonal weight")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=150)
