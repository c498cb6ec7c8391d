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

from hf_video_tome.metrics import functional

# Few different values, so that ties are common.
TIED = npst.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.sampled_from([-2.0, 0, 1]))


def random_scores(num_samples=50, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_samples, num_classes)), rng.integers(num_classes, size=num_samples)


@given(scores=TIED, data=st.data())
def test_ranks_are_places_in_the_order_of_top_classes(scores, data):
    num_samples, num_classes = scores.shape
    labels = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=num_samples, max_size=num_samples)))
    order = functional.top_classes(scores, num_classes)
    # By its definition: a higher score first, of equal ones the lower index.
    assert order.tolist() == [sorted(range(num_classes), key=lambda c: (-row[c], c)) for row in scores]
    ranks = functional.ranks(scores, labels)
    assert ranks.tolist() == [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]
    assert functional.ranked_positions(order, labels).tolist() == ranks.tolist()


@given(scores=TIED)
def test_ties_are_broken_as_by_argmax(scores):
    best = functional.top_classes(scores)[:, 0]
    assert best.tolist() == torch.from_numpy(scores).argmax(dim=1).tolist() == scores.argmax(axis=1).tolist()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ranks_agree_with_scikit_learn(k):
    scores, labels = random_scores()
    expected = top_k_accuracy_score(labels, scores, k=k, labels=range(7))
    assert (functional.ranks(scores, labels) < k).mean() == pytest.approx(expected)


def test_ruled_out_classes():
    scores = [[-np.inf, 1.0, -np.inf]]
    assert functional.top_classes(scores, 3).tolist() == [[1, 0, 2]]
    assert [functional.ranks(scores, [label])[0] for label in range(3)] == [1, 0, 2]
    assert functional.log_softmax(scores).tolist() == [[-np.inf, 0.0, -np.inf]]


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_log_softmax_agrees_with_torch_and_does_not_overflow(shift):
    scores, _ = random_scores()
    expected = torch.log_softmax(torch.from_numpy(scores), dim=1).numpy()
    np.testing.assert_allclose(functional.log_softmax(scores + shift), expected, atol=1e-11 * max(1, abs(shift)))


def test_likelihood_agrees_with_scikit_learn_and_torch():
    scores, labels = random_scores()
    values = functional.negative_log_likelihood(scores, labels)
    probabilities = torch.softmax(torch.from_numpy(scores), dim=1).numpy()
    assert values.mean() == pytest.approx(log_loss(labels, probabilities, labels=range(7)))
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(values, expected.numpy())
    np.testing.assert_allclose(functional.negative_log_likelihood(probabilities, labels, True), values)


def test_likelihood_of_the_impossible_and_the_certain():
    values = functional.negative_log_likelihood([[1.0, 0.0], [1.0, 0.0]], [1, 0], from_probabilities=True)
    assert values.tolist() == [math.inf, 0.0]
    assert math.copysign(1, values[1]) == 1
    assert functional.mean_with_error(values)[0] == math.inf
    assert math.isnan(functional.mean_with_error(values)[1])


def test_kl_divergence_agrees_with_torch():
    reference, scores = random_scores(seed=1)[0], random_scores(seed=2)[0]
    logs = [torch.log_softmax(torch.from_numpy(values), dim=1) for values in (scores, reference)]
    expected = torch.nn.functional.kl_div(*logs, log_target=True, reduction="none").sum(dim=1)
    np.testing.assert_allclose(functional.kl_divergence(reference, scores), expected.numpy())
    assert functional.kl_divergence(reference, reference).max() == 0


def test_kl_divergence_with_probabilities_of_zero():
    half, first = [[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]]
    assert functional.kl_divergence(first, half, True).tolist() == [pytest.approx(math.log(2))]
    assert functional.kl_divergence(half, first, True).tolist() == [math.inf]


# Combinations


def joint_ranks_by_definition(groups, labels):
    ranks = []
    for sample, label in enumerate(labels):
        combinations = itertools.product(*(range(group.shape[1]) for group in groups))
        logs = [functional.log_softmax(group)[sample] for group in groups]
        totals = {c: round(sum(log[i] for log, i in zip(logs, c, strict=True)), 9) for c in combinations}
        order = sorted(totals, key=lambda c: (-totals[c], c))
        ranks.append(order.index(tuple(label)))
    return ranks


@pytest.mark.parametrize("sizes", [(4,), (4, 6), (2, 3, 5)])
@pytest.mark.parametrize("chunk", [1, 60, 1 << 20])
def test_joint_ranks_are_those_of_the_products_of_softmaxes(sizes, chunk, monkeypatch):
    monkeypatch.setattr(functional, "_CHUNK_ELEMENTS", chunk)
    rng = np.random.default_rng(0)
    groups = [rng.normal(scale=2, size=(23, size)) for size in sizes]
    labels = np.stack([rng.integers(size, size=23) for size in sizes], axis=1)
    labels[:5] = np.stack([group[:5].argmax(axis=1) for group in groups], axis=1)
    found = functional.joint_ranks(groups, labels)
    assert found.tolist() == joint_ranks_by_definition(groups, labels)
    assert (found[:5] == 0).all()
    logs = [functional.log_softmax(group) for group in groups]
    assert functional.joint_ranks(logs, labels).tolist() == found.tolist()


def test_joint_ranks_of_equal_sums_go_by_the_index_of_the_first_group():
    groups = [np.zeros((6, 2)), np.zeros((6, 3))]
    labels = list(itertools.product(range(2), range(3)))
    assert functional.joint_ranks(groups, labels).tolist() == list(range(6))


def test_joint_ranks_agree_with_the_groups_where_sums_round():
    first, second = np.array([[1e-9, 0.0]]), np.array([[1e9, 0.0]])  # 1e9 + 1e-9 is 1e9 in float64
    assert functional.joint_ranks([-first, second], [[1, 0]]).tolist() == [0]
    assert functional.joint_ranks([-first, second], [[0, 0]]).tolist() == [1]


def test_joint_ranks_at_the_size_of_epic_kitchens():
    rng = np.random.default_rng(0)
    verbs, nouns = rng.normal(size=(40, 97)), rng.normal(size=(40, 300))
    labels = np.stack([rng.integers(97, size=40), rng.integers(300, size=40)], axis=1)
    everything = (verbs[:, :, None] + nouns[:, None, :]).reshape(40, -1)
    expected = functional.ranks(everything, labels[:, 0] * 300 + labels[:, 1])
    assert functional.joint_ranks([verbs, nouns], labels).tolist() == expected.tolist()


# Errors of estimation


def test_standard_errors_agree_with_repeated_draws():
    rng = np.random.default_rng(0)
    shares = (rng.random((20_000, 50)) < 0.3).mean(axis=1)
    assert functional.standard_error(0.3, 50) == pytest.approx(shares.std(), rel=0.02)
    values = rng.normal(size=30)
    error = functional.mean_with_error(values)[1]
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(30))
    assert functional.share_with_error([True]) == (1.0, 0.0)
    assert math.isnan(functional.mean_with_error([2.0])[1])


# What is refused


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.0, np.nan], [1.0, 2.0]], r"`scores` must be finite .* 1 of 2 samples .* sample 0, which has NaN"),
        ([[0.0, 1.0], [np.inf, 2.0]], "sample 1, which has inf"),
        ([[-np.inf, -np.inf]], "sample 0, which has only -inf"),
        ([0.0, 1.0], r"`scores` must be scores of the shape \(samples, classes\).* got \(2,\)"),
        (np.zeros((0, 3)), r"none of them 0, got \(0, 3\)"),
        ([[1.0], [1.0, 2.0]], "`scores` must be scores, as many for every sample"),
        ([["a", "b"]], "`scores` must be scores, got an array of <U1"),
    ],
)
def test_malformed_scores(scores, message):
    for function in (functional.top_classes, functional.log_softmax, lambda s: functional.ranks(s, [0])):
        with pytest.raises(ValueError, match=message):
            function(scores)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "`labels` must be class ids from 0 to 2, got 3 for sample 1"),
        ([-1, 0], "`labels` must be class ids from 0 to 2, got -1 for sample 0"),
        ([0], "`labels` must be of as many samples as the other input, 2, got 1"),
        ([[0, 1]], r"`labels` must be class ids of the shape \(samples,\), at least one, got \(1, 2\)"),
        ([0.0, 1.0], "`labels` must be class ids, which are integers, got an array of float64"),
        ([True, False], "integers, got an array of bool"),
    ],
)
def test_malformed_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        functional.ranks(np.zeros((2, 3)), labels)


@pytest.mark.parametrize("function", [functional.check_probabilities, lambda p: functional.kl_divergence(p, p, True)])
def test_what_is_no_probability(function):
    with pytest.raises(ValueError, match=r"must be probabilities .* sample 1 add up to 3, the lowest being 1"):
        function([[0.5, 0.5], [1.0, 2.0]])
    with pytest.raises(ValueError, match=r"sample 0 add up to 1, the lowest being -0\.5"):
        function([[1.5, -0.5]])
    half = np.random.default_rng(0).dirichlet(np.ones(1000), size=20).astype(np.float16)
    functional.check_probabilities(half)  # lower precisions do not quite add up


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [[0]]), "`scores` must be the scores of at least one group"),
        (([np.zeros((2, 3)), np.zeros((1, 3))], [[0, 0]] * 2), r"`scores\[1\]` must be of as many samples"),
        (([np.zeros((2, 3)), np.zeros((2, 3))], [0, 0]), r"`labels` must be class ids of the shape \(samples, 2\)"),
        (([np.zeros((1, 3)), np.zeros((1, 2))], [[2, 2]]), r"`labels\[:, 1\]` must be class ids from 0 to 1, got 2"),
    ],
)
def test_malformed_groups(arguments, message):
    with pytest.raises(ValueError, match=message):
        functional.joint_ranks(*arguments)


@pytest.mark.parametrize("k", [0, 4, 1.0, True, "1", [], [1, 9]])
def test_malformed_k(k):
    with pytest.raises(ValueError, match="`k` must be"):
        functional.check_k(k, 3, "classes")


@pytest.mark.parametrize("groups", [{}, {"action": 3}, {"verb": 0}, {"": 3}, {"verb": 1.5}, [3], {"verb": 4}])
def test_malformed_label_groups(groups):
    with pytest.raises(ValueError, match="`label_groups` must"):
        functional.split_groups(np.zeros((2, 3)), groups)


def test_ranked_ids_name_no_class_twice():
    with pytest.raises(ValueError, match=r"`ids` must not name a class twice, but sample 1 has \[2, 2\]"):
        functional.ranked_positions([[0, 1], [2, 2]], [0, 0])


def test_shares_of_nothing():
    for function in (functional.share_with_error, functional.mean_with_error):
        with pytest.raises(ValueError, match="at least one sample"):
            function([])
    with pytest.raises(ValueError, match=r"`share` must be from 0 to 1, got 1\.5"):
        functional.standard_error(1.5, 3)
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        functional.standard_error(0.5, 0)
