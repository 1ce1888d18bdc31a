"""Tables, CSV files and the plot of the results."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.race import Race
from benchmarks.scaling import Cost


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


def show_scaling(costs: list[Cost], console: Console) -> None:
    """Print the time and the memory against each variable, and the exponents of the larger half of its values."""
    for variable in dict.fromkeys(cost.variable for cost in costs):
        own = [cost for cost in costs if cost.variable == variable]
        values, layers = ({getattr(cost, what): None for cost in own} for what in ("value", "layer"))
        cells = {(cost.layer, cost.value): cost for cost in own}
        title = "forward and backward: ms, MB"
        table = Table(variable, *layers, title=title, title_justify="left")
        for value in values:
            row = [cells[layer, value] for layer in layers]
            table.add_row(str(value), *(f"{cost.ms:.0f}, {cost.mb:.0f}" for cost in row))
        upper = list(values)[len(values) // 2 :]
        exponents = (
            [slope({value: getattr(cells[layer, value], what) for value in upper}) for what in ("ms", "mb")]
            for layer in layers
        )
        table.add_row("exponents", *(f"{time:.2f}, {memory:.2f}" for time, memory in exponents))
        console.print(table)


def write_scaling(costs: list[Cost], path: Path) -> None:
    """Write the time and the memory of recurrent layers to a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "variable", "value", "ms", "MB"])
        writer.writerows([cost.layer, cost.variable, cost.value, cost.ms, cost.mb] for cost in costs)
