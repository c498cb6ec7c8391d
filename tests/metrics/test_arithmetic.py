from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import log_loss, top_k_accuracy_score

from hf_video_tome.metrics import columns, ranking
from hf_video_tome.metrics.likelihood import kl_divergence, log_probabilities, negative_log_likelihood
from hf_video_tome.metrics.ranking import joint_ranks, ranks, ranks_among, top_classes
from hf_video_tome.metrics.standard_errors import mean_with_error, share_with_error

# Few different values, so that ties are common.
TIED = npst.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.sampled_from([-2.0, 0, 1]))


def random_scores(num_samples=50, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(num_samples, num_classes))
    return torch.from_numpy(scores), torch.from_numpy(rng.integers(num_classes, size=num_samples))


@given(scores=TIED, data=st.data())
def test_ranks_are_places_in_the_order_of_top_classes(scores, data):
    num_samples, num_classes = scores.shape
    labels = torch.tensor(
        data.draw(st.lists(st.integers(0, num_classes - 1), min_size=num_samples, max_size=num_samples))
    )
    order = top_classes(torch.from_numpy(scores), num_classes)
    # By its definition: a higher score first, of equal ones the lower index.
    assert order.tolist() == [sorted(range(num_classes), key=lambda c: (-row[c], c)) for row in scores]
    found = ranks(torch.from_numpy(scores), labels).tolist()
    assert found == [row.index(label) for row, label in zip(order.tolist(), labels.tolist(), strict=True)]
    assert ranks_among(order, labels).tolist() == found


@given(scores=TIED)
def test_ties_are_broken_as_by_argmax(scores):
    best = top_classes(torch.from_numpy(scores))[:, 0]
    assert best.tolist() == torch.from_numpy(scores).argmax(dim=1).tolist() == scores.argmax(axis=1).tolist()


def test_a_class_that_is_not_among_ranked_ids():
    assert ranks_among(torch.tensor([[4, 2], [1, 0]]), torch.tensor([3, 0])).tolist() == [2, 1]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ranks_agree_with_scikit_learn(k):
    scores, labels = random_scores()
    expected = top_k_accuracy_score(labels, scores, k=k, labels=range(7))
    assert (ranks(scores, labels) < k).double().mean().item() == pytest.approx(expected)


def test_ruled_out_classes():
    scores = torch.tensor([[-torch.inf, 1.0, -torch.inf]])
    assert top_classes(scores, 3).tolist() == [[1, 0, 2]]
    assert [ranks(scores, torch.tensor([label])).item() for label in range(3)] == [1, 0, 2]
    assert log_probabilities(scores).tolist() == [[-torch.inf, 0.0, -torch.inf]]


def test_likelihood_agrees_with_scikit_learn_and_torch():
    scores, labels = random_scores()
    values = negative_log_likelihood(log_probabilities(scores), labels)
    probabilities = torch.softmax(scores, dim=1)
    assert values.mean().item() == pytest.approx(log_loss(labels, probabilities, labels=range(7)))
    torch.testing.assert_close(values, torch.nn.functional.cross_entropy(scores, labels, reduction="none"))
    torch.testing.assert_close(negative_log_likelihood(log_probabilities(probabilities, True), labels), values)


def test_likelihood_of_the_impossible_and_the_certain():
    logs = log_probabilities(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), from_probabilities=True)
    values = negative_log_likelihood(logs, torch.tensor([1, 0]))
    assert values.tolist() == [math.inf, 0.0]
    assert math.copysign(1, values[1]) == 1
    assert mean_with_error(values)[0] == math.inf
    assert math.isnan(mean_with_error(values)[1])


def test_kl_divergence_by_its_definition():
    reference, prediction = (torch.log_softmax(random_scores(seed=seed)[0], dim=1) for seed in (1, 2))
    expected = (reference.exp() * (reference - prediction)).sum(dim=1)
    torch.testing.assert_close(kl_divergence(reference, prediction), expected)
    assert kl_divergence(reference, reference).max() == 0


def test_kl_divergence_with_probabilities_of_zero():
    half, first = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[1.0, 0.0, 0.0]]).log()
    assert kl_divergence(first, half).tolist() == [pytest.approx(math.log(2))]
    assert kl_divergence(half, first).tolist() == [math.inf]


# Combinations


def joint_ranks_by_definition(groups, labels):
    found = []
    for sample, label in enumerate(labels.tolist()):
        combinations = itertools.product(*(range(group.shape[1]) for group in groups))
        logs = [group[sample].log_softmax(-1).tolist() for group in groups]
        totals = {c: round(sum(log[i] for log, i in zip(logs, c, strict=True)), 9) for c in combinations}
        order = sorted(totals, key=lambda c: (-totals[c], c))
        found.append(order.index(tuple(label)))
    return found


@pytest.mark.parametrize("sizes", [(4,), (4, 6), (2, 3, 5)])
@pytest.mark.parametrize("chunk", [1, 60, 1 << 20])
def test_joint_ranks_are_those_of_the_products_of_softmaxes(sizes, chunk, monkeypatch):
    monkeypatch.setattr(ranking, "_CHUNK_ELEMENTS", chunk)
    groups, columns = zip(*(random_scores(23, size, seed) for seed, size in enumerate(sizes)), strict=True)
    groups, labels = [2 * group for group in groups], torch.stack(columns, dim=1)
    labels[:5] = torch.stack([group[:5].argmax(dim=1) for group in groups], dim=1)
    found = joint_ranks(groups, labels)
    assert found.tolist() == joint_ranks_by_definition(groups, labels)
    assert (found[:5] == 0).all()
    assert joint_ranks([log_probabilities(group) for group in groups], labels).tolist() == found.tolist()


def test_joint_ranks_of_equal_sums_go_by_the_index_of_the_first_group():
    groups = [torch.zeros(6, 2), torch.zeros(6, 3)]
    labels = torch.tensor(list(itertools.product(range(2), range(3))))
    assert joint_ranks(groups, labels).tolist() == list(range(6))


def test_joint_ranks_agree_with_the_groups_where_sums_round():
    # 1e9 + 1e-9 is 1e9 in float64.
    first, second = (torch.tensor([[value, 0.0]], dtype=torch.float64) for value in (1e-9, 1e9))
    assert joint_ranks([-first, second], torch.tensor([[1, 0]])).tolist() == [0]
    assert joint_ranks([-first, second], torch.tensor([[0, 0]])).tolist() == [1]


def test_joint_ranks_at_the_size_of_epic_kitchens():
    (verbs, verb), (nouns, noun) = random_scores(40, 97), random_scores(40, 300, seed=1)
    expected = ranks((verbs[:, :, None] + nouns[:, None, :]).flatten(1), verb * 300 + noun)
    assert joint_ranks([verbs, nouns], torch.stack([verb, noun], dim=1)).tolist() == expected.tolist()


# Errors of estimation


def test_standard_errors_agree_with_repeated_draws():
    rng = np.random.default_rng(0)
    shares = (rng.random((20_000, 50)) < 0.3).mean(axis=1)
    assert share_with_error([True] * 15 + [False] * 35)[1] == pytest.approx(shares.std(), rel=0.02)
    values = rng.normal(size=30)
    assert mean_with_error(values)[1] == pytest.approx(values.std(ddof=1) / math.sqrt(30))
    assert share_with_error([True]) == (1.0, 0.0)
    assert math.isnan(mean_with_error([2.0])[1])


@given(values=npst.arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e6, 1e6)))
def test_standard_errors_agree_with_numpy(values):
    mean, error = mean_with_error(values)
    assert mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-9)
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(len(values)), rel=1e-12, abs=1e-9)
    share, error = share_with_error(values > 0)
    assert share == (values > 0).mean()
    assert error == pytest.approx((values > 0).std() / math.sqrt(len(values)), rel=1e-12, abs=1e-12)
    for other in (values.tolist(), torch.from_numpy(values)):
        assert mean_with_error(other) == mean_with_error(values)


# What is refused


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.0, np.nan], [1.0, 2.0]], r"scores must be finite .* 1 of 2 samples .* sample 0, which has NaN"),
        ([[0.0, 1.0], [np.inf, 2.0]], "sample 1, which has inf"),
        ([[-np.inf, -np.inf]], "sample 0, which has only -inf"),
        ([0.0, 1.0], r"scores must be scores of the shape \(samples, classes\).* got \(2,\)"),
        (np.zeros((0, 3)), r"none of them 0, got \(0, 3\)"),
        ([[1.0], [1.0, 2.0]], "scores must be scores, as many for every sample"),
        ([["a", "b"]], "scores must be scores, got an array of <U1"),
    ],
)
def test_malformed_scores(scores, message):
    with pytest.raises(ValueError, match=message):
        columns.to_scores(scores, "scores")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "labels must be class ids from 0 to 2, got 3 for sample 1"),
        ([-1, 0], "labels must be class ids from 0 to 2, got -1 for sample 0"),
        ([0], "labels must have as many samples as the other input, 2, got 1"),
        ([[0, 1]], r"labels must be class ids of the shape \(samples,\), at least one, got \(1, 2\)"),
        ([0.0, 1.0], "labels must be class ids, which are integers, got an array of float64"),
        ([True, False], "integers, got an array of bool"),
    ],
)
def test_malformed_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        columns.to_class_ids(labels, 2, 3, name="labels")


def test_what_is_no_probability():
    with pytest.raises(ValueError, match=r"must be probabilities .* sample 1 add up to 3, the lowest being 1"):
        columns.check_probabilities(torch.tensor([[0.5, 0.5], [1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"sample 0 add up to 1, the lowest being -0\.5"):
        columns.check_probabilities(torch.tensor([[1.5, -0.5]]))
    half = np.random.default_rng(0).dirichlet(np.ones(1000), size=20).astype(np.float16)
    columns.check_probabilities(columns.to_scores(half))  # lower precisions do not quite add up


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 0], r"references must be class ids of the shape \(samples, 2\), one per group, got \(2,\)"),
        ([[0, 0]], "references must have as many samples as the other input, 2, got 1"),
        ([[2, 1], [2, 2]], r"references\[:, 1\] must be class ids from 0 to 1, got 2 for sample 1"),
    ],
)
def test_malformed_group_ids(ids, message):
    with pytest.raises(ValueError, match=message):
        columns.to_group_ids(ids, [3, 2], 2)


@pytest.mark.parametrize("k", [0, 4, 1.0, True, "1", [], [1, 9]])
def test_malformed_k(k):
    with pytest.raises(ValueError, match="k must be"):
        columns.check_k(k, 3, "classes")


@pytest.mark.parametrize("groups", [{}, {"action": 3}, {"verb": 0}, {"": 3}, {"verb": 1.5}, [3], {"verb": 4}])
def test_malformed_label_groups(groups):
    with pytest.raises(ValueError, match="label_groups must"):
        columns.to_group_scores(np.zeros((2, 3)), groups)


def test_ranked_ids_name_no_class_twice():
    with pytest.raises(ValueError, match=r"ids must not name a class twice, but sample 1 has \[2, 2\]"):
        columns.to_ranked_ids([[0, 1], [2, 2]], name="ids")


def test_shares_of_nothing():
    for function in (share_with_error, mean_with_error):
        with pytest.raises(ValueError, match="at least one sample"):
            function([])
