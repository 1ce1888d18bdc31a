"""Weights that are sharded over ranks as DTensors."""

import re

import pytest
import torch

from projunn_lightning.functional import RETRACTIONS, SAMPLERS
from tests.support import sharded_runs

ON_SHARDS = [name for name, sampler in SAMPLERS.items() if not sampler.needs_whole]

SHARDED = {  # shape, the dim along which it is sharded, the number of matrices stacked along dim 0
    "square by rows": ((12, 12), 0, 1),
    "tall, unevenly": ((13, 7), 0, 1),
    "wide": ((7, 13), 0, 1),
    "square by columns": ((12, 12), 1, 1),
    "tall by columns": ((13, 7), 1, 1),
    "wide by columns": ((7, 13), 1, 1),
    "stacked": ((20, 5), 0, 4),
    "stacked, cut within a matrix": ((15, 5), 0, 3),
    "stacked by columns": ((15, 5), 1, 3),
    "a batch": ((5, 4, 4), 0, 1),
    "kernels": ((8, 3, 3, 3), 0, 1),
    "kernels by channels": ((8, 3, 3, 3), 1, 1),
    "kernels in groups, cut within a group": ((9, 2, 3, 3), 0, 3),
    "kernels in groups by channels": ((9, 2, 3, 3), 1, 3),
    "nothing on the last rank": ((1, 9), 0, 1),
}


def agree(world, shape, dim, chunks=1, dtype=torch.float64, **options):
    """Whether a sharded run gives the same bits on every rank, and to rounding the values of an unsharded run."""
    first, second = world(sharded_runs.trained, shape, dim, dtype, chunks, **options)
    assert torch.equal(first, second)
    alone = sharded_runs.trained(shape, None, dtype, chunks, **options)
    return torch.allclose(first, alone, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


class TestUpdate:
    @pytest.mark.parametrize("name", SHARDED)
    def test_equals_the_update_of_a_whole_weight(self, world, name):
        shape, dim, chunks = SHARDED[name]
        assert agree(world, shape, dim, chunks)

    @pytest.mark.parametrize("retraction", RETRACTIONS)
    @pytest.mark.parametrize("sampler", ON_SHARDS)
    @pytest.mark.parametrize("name", ["tall, unevenly", "wide", "stacked, cut within a matrix"])
    def test_equals_it_for_every_retraction_and_sampler(self, world, name, sampler, retraction):
        shape, dim, chunks = SHARDED[name]
        assert agree(world, shape, dim, chunks, retraction=retraction, sampler=sampler, rank=3, feedback=0.5)

    @pytest.mark.parametrize("sampler", ["tangent", "lsi"])
    def test_with_feedback_continues_from_a_checkpoint_with_the_same_bits(self, world, sampler):
        for resumed, unbroken, residual in world(sharded_runs.resumed, sampler=sampler, feedback=0.5):
            assert torch.equal(resumed, unbroken)
            assert residual == (13, 7)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
    def test_equals_it_in_single_precision_and_for_complex_weights(self, world, dtype):
        assert agree(world, (12, 12), 0, dtype=dtype)

    def test_is_summed_only_over_the_ranks_that_share_a_weight(self, world):
        (error, first), (_, second) = world(sharded_runs.replicated)
        assert error < 1e-12
        assert torch.equal(first, second)

    @pytest.mark.parametrize("retraction", RETRACTIONS)
    def test_no_rank_makes_or_sends_more_than_its_part(self, world, retraction):
        n, rank = 256, 2
        for made, communicated, correcting in world(sharded_runs.largest_tensors, n, retraction, rank):
            assert made == n * n // 2  # the part of a rank
            assert 0 < communicated <= 2 * rank * n
            assert communicated < correcting <= 64 * n


class TestTheWayBackToTheManifold:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
    @pytest.mark.parametrize(
        ("shape", "dim", "scale"),
        [((12, 12), 0, 1.0), ((150, 130), 0, 1e-4), ((90, 150), 0, 1e3), ((90, 150), 1, 1.0), ((5, 70, 70), 0, 1.0)],
        ids=str,
    )
    def test_a_weight_chosen_by_pattern_starts_from_its_nearest_unitary_one(self, world, shape, dim, scale, dtype):
        eps = torch.finfo(dtype).eps
        for distance, error, reported in world(sharded_runs.made_unitary, shape, dim, scale, dtype):
            assert distance < 100 * eps
            assert error < 10 * eps
            assert reported < 10 * eps

    @pytest.mark.parametrize(("shape", "dim"), [((12, 12), 0), ((150, 130), 1), ((90, 150), 0)], ids=str)
    def test_drift_is_corrected(self, world, shape, dim):
        for before, after, corrections in world(sharded_runs.drifting, shape, dim):
            assert before > 1e-3
            assert after < 1e-6
            assert corrections == 1

    def test_a_weight_that_has_become_singular_is_an_error(self, world):
        for found in world(sharded_runs.zeroed):
            assert "weight is sharded and singular or nearly singular" in found


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("chunks", r"weight is sharded, and its chunks \(5, 3\) are not of one shape, which needs the whole weight"),
        ("svd", "sampler 'svd' needs the whole update of weight on one process"),
        ("full", "rank='full' needs the whole weight on one process, and weight is sharded"),
        ("skew", "coordinates='skew' need the whole weight, and weight is sharded"),
        ("partial", "weight is a DTensor that cannot be kept orthogonal: its placements"),
        ("init", "init 'haar' of .*weight needs the whole weight, which is sharded already: declare it"),
        ("singular", "weight is sharded and singular or nearly singular"),
        ("not finite", "weight holds values that are not finite"),
        ("flat", "a part of a flat parameter and no longer a matrix. .* shard by FSDP2 instead"),
    ],
)
def test_refuses_on_every_rank(world, what, message):
    for found in world(sharded_runs.refused, what):
        assert re.match(f"ConstraintError: .*{message}", found)
