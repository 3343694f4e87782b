"""The checks of independence suspect a right implementation as seldom as they say, and enter their regimes."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from detr_conformance.harness.subject import Settings, Subject
from detr_conformance.running.mutants import TWINS
from detr_conformance.topics.denoising import test_contrastive_denoising_independence as suite
from detr_conformance.topics.denoising.cases import APART, noisy
from detr_conformance.topics.denoising.checks.independence import (
    ALARM,
    Features,
    Statistic,
    any_distance,
    any_two,
    limit,
    means,
    of_labels,
    of_moves,
    of_signs,
    patterns,
    three_groups,
    turns,
    two_calls,
    unsuspicious,
)
from detr_conformance.topics.denoising.checks.queries import Queries, queries

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
WRITTEN = [name for name, twin in TWINS.items() if twin.operation == "contrastive_denoising"]
SEEDS = 60


def small(name: str, seed: int) -> Queries:
    """Of a tenth of the suite's sample and less."""
    subject = Subject("contrastive_denoising", TWINS[name].build(), settings=Settings(seed=seed))
    return queries(subject, noisy(subject, (10,) * 8, "small", denoising_number=60, box_noise_scale=APART))


def statistics_of(seen: Queries, other: Queries) -> dict[str, list[Statistic]]:
    moves, signs, labels = of_moves(seen), of_signs(seen), of_labels(seen, 0.5)
    both = signs.numbers.movedim(2, -2).flatten(-2).flatten(0, 2)
    return {
        "means": [*means(moves), *means(labels)],
        "any two": list(any_two(moves)),
        "any two labels": list(any_two(labels.beside(signs))),
        "any distance": [*any_distance(moves), *any_distance(labels)],
        "three groups": [*three_groups(signs), *three_groups(labels)],
        "turns": list(turns(moves)),
        "patterns": list(patterns(both, "a pair")),
        "two calls": list(two_calls(moves, of_moves(other))),
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_the_rate_of_false_alarms_is_bounded(name: str) -> None:
    """Chances of 0.5, 0.1 and 0.02 occur as often, or less; by a normal approximation of how often, within 4 sigma."""
    found = defaultdict(list)
    before = small(name, -1)
    for seed in range(SEEDS):
        seen = small(name, seed)
        for what, statistics in statistics_of(seen, before).items():
            found[what] += [statistic.chance for statistic in statistics]
        before = seen
    for what, chances in found.items():
        for chance in (0.5, 0.1, 0.02):
            # Statistics of one sample have to do with each other: the spread is taken as if a sample had one.
            most = chance + 4 * math.sqrt(chance / SEEDS)
            assert sum(each <= chance for each in chances) <= most * len(chances), (what, chance)


def test_the_bounds_are_not_vacuous() -> None:
    """Of many comparisons the largest is half as large as that of as many normal numbers, at least."""
    for what, statistics in statistics_of(small(WRITTEN[0], 0), small(WRITTEN[0], 1)).items():
        for each in statistics:
            if each.comparisons > 50:
                assert each.largest > math.sqrt(2 * math.log(each.comparisons)) / 2.2, (what, each)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("seed", [1, 2])
def test_right_ones_pass_at_other_seeds(name: str, seed: int) -> None:
    subject = Subject("contrastive_denoising", TWINS[name].build(), settings=Settings(seed=seed, shrink=False))
    for test in (each for each in vars(suite).values() if hasattr(each, "suite_test")):
        test(replace(subject))


def test_limits_and_chances_belong_together() -> None:
    for comparisons in (1, 255, 100_000):
        assert Statistic(comparisons, limit(comparisons), "").chance == pytest.approx(ALARM)


def test_the_regime_is_entered() -> None:
    subject = Subject("contrastive_denoising", TWINS[WRITTEN[0]].build())
    (row,), (images,), (groups,) = suite.in_a_row(subject), suite.many_images(subject), suite.many_groups(subject)
    assert of_moves(queries(subject, row)).numbers.shape[:4] == (64, 20, 2, 40)
    assert len(queries(subject, images).noised_labels.flatten()) > 300_000
    assert queries(subject, groups).noised_labels.shape[1] > 256


def test_a_dependence_that_no_correlation_shows_is_found() -> None:
    """r and |2 r - 1|; four lengths of which the last is the sum of the others, modulo their range."""
    share = torch.rand(8, 6, 2, 10, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share[..., 1] = (2 * share[..., 0] - 1).abs()
    share[..., 7] = (share[..., 4:7].sum(-1)) % 1
    uniform, cosine = math.sqrt(3) * (2 * share - 1), math.sqrt(2) * (2 * math.pi * share).cos()
    folded = torch.cat((uniform[..., 1:2], cosine[..., :1]), -1)
    with pytest.raises(AssertionError, match="go together"):
        unsuspicious("folded", any_two(Features(folded, ("one", "other"), (0, 1), 2)))
    with pytest.raises(AssertionError, match="go together"):
        unsuspicious("summed", turns(Features(uniform, ("",) * 8, tuple(range(8)), 8)))
