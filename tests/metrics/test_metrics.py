from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys

import evaluate
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, top_k_accuracy_score

from hf_video_tome import metrics
from hf_video_tome.metrics import (
    ActionAccuracy,
    Agreement,
    NegativeLogLikelihood,
    PerClassAccuracy,
    TopKAccuracy,
)
from hf_video_tome.metrics.ranking import top_classes

METRICS = [ActionAccuracy, Agreement, NegativeLogLikelihood, PerClassAccuracy, TopKAccuracy]
GROUPS = {"verb": 6, "noun": 8}


def name_of(metric):
    return metric.__module__.rpartition(".")[2]


def samples(num_samples=60, num_classes=8, seed=0):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(num_samples, num_classes)), rng.integers(num_classes, size=num_samples)
    scores[np.arange(num_samples), labels] += 1  # better than chance
    return scores, labels


def action_samples(num_samples=60):
    (verbs, verb), (nouns, noun) = samples(num_samples, GROUPS["verb"]), samples(num_samples, GROUPS["noun"], seed=1)
    return np.concatenate([verbs, nouns], axis=1), np.stack([verb, noun], axis=1)


def inputs_of(metric):
    """(predictions, references, arguments of compute) that suit the default config."""
    if metric is ActionAccuracy:
        return *action_samples(), {"label_groups": GROUPS}
    scores, labels = samples()
    if metric is Agreement:
        return scores, samples(seed=1)[0], {"kl_divergence": True}
    return scores, labels, {}


# Values


def test_top_k_accuracy_agrees_with_scikit_learn():
    scores, labels = samples()
    results = TopKAccuracy().compute(predictions=scores, references=labels)
    assert list(results) == [
        "top_1_accuracy",
        "top_1_accuracy_standard_error",
        "top_5_accuracy",
        "top_5_accuracy_standard_error",
    ]
    for k in (1, 5):
        share = top_k_accuracy_score(labels, scores, k=k, labels=range(8))
        assert results[f"top_{k}_accuracy"] == pytest.approx(share)
        assert results[f"top_{k}_accuracy_standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / 60))
    ranked = top_classes(torch.from_numpy(scores), 5)
    assert TopKAccuracy("ranked").compute(predictions=ranked, references=labels) == results


def test_top_k_accuracy_of_ties_is_that_of_argmax():
    scores, labels = torch.zeros(8, 8), torch.arange(8)
    results = TopKAccuracy().compute(predictions=scores, references=labels, k=[1, 3])
    assert (results["top_1_accuracy"], results["top_3_accuracy"]) == (1 / 8, 3 / 8)


def test_action_accuracy_by_its_definition():
    scores, labels = action_samples()
    metric = ActionAccuracy()
    results = metric.compute(predictions=scores, references=labels, label_groups=GROUPS, k=[1, 2, 5])
    parts = {"verb": scores[:, :6], "noun": scores[:, 6:]}
    for index, (name, part) in enumerate(parts.items()):
        for k in (1, 2, 5):
            expected = top_k_accuracy_score(labels[:, index], part, k=k, labels=range(part.shape[1]))
            assert results[f"{name}_top_{k}_accuracy"] == pytest.approx(expected)
    answers = np.stack([part.argmax(axis=1) for part in parts.values()], axis=1)
    assert results["action_top_1_accuracy"] == (answers == labels).all(axis=1).mean()
    probabilities = [torch.softmax(torch.from_numpy(part), dim=1).numpy() for part in parts.values()]
    pairs = (probabilities[0][:, :, None] * probabilities[1][:, None, :]).reshape(len(labels), -1)
    flat = labels[:, 0] * 8 + labels[:, 1]
    for k in (2, 5):
        share = top_k_accuracy_score(flat, pairs, k=k, labels=range(48))
        assert results[f"action_top_{k}_accuracy"] == pytest.approx(share)
        error = results[f"action_top_{k}_accuracy_standard_error"]
        assert error == pytest.approx(math.sqrt(share * (1 - share) / 60))

    ranked = np.stack([top_classes(torch.from_numpy(part), 5) for part in parts.values()], axis=1)
    of_ids = ActionAccuracy("ranked").compute(predictions=ranked, references=labels, label_groups=GROUPS, k=[1, 2, 5])
    assert of_ids == {key: value for key, value in results.items() if key.split("_top_")[0] != "action"} | {
        key: value for key, value in results.items() if key.startswith("action_top_1_")
    }
    averaged = np.concatenate(probabilities, axis=1)
    assert results == metric.compute(
        predictions=averaged, references=labels, label_groups=GROUPS, k=[1, 2, 5], from_probabilities=True
    )


@pytest.mark.parametrize("groups", [{"a": 8}, {"a": 2, "b": 2, "c": 4}])
def test_action_accuracy_with_any_groups(groups):
    scores, _ = samples()
    starts = np.cumsum([0, *groups.values()])[:-1]
    labels = np.stack([scores[:, s : s + n].argmax(axis=1) for s, n in zip(starts, groups.values(), strict=True)], 1)
    results = ActionAccuracy().compute(predictions=scores, references=labels, label_groups=groups, k=1)
    assert {key for key in results if not key.endswith("error")} == {
        f"{name}_top_1_accuracy" for name in (*groups, "action")
    }
    assert all(value == 1 for key, value in results.items() if not key.endswith("error"))


def test_per_class_accuracy_agrees_with_scikit_learn():
    scores, labels = samples(num_classes=8)
    labels[labels == 3] = 5
    results = PerClassAccuracy().compute(predictions=scores, references=labels)
    answers = scores.argmax(axis=1)
    assert results["mean_class_accuracy"] == pytest.approx(
        np.mean([accuracy_score(labels[labels == c], answers[labels == c]) for c in set(labels.tolist())])
    )
    seen = ~np.isin(answers, [3])  # scikit-learn warns of answers that are no label
    few = PerClassAccuracy("ids").compute(predictions=answers[seen], references=labels[seen], num_classes=8)
    assert few["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(labels[seen], answers[seen]))
    assert results["per_class_accuracy"][3] is None
    assert results["per_class_count"] == np.bincount(labels, minlength=8).tolist()
    assert results["per_class_accuracy"][5] == pytest.approx((answers[labels == 5] == 5).mean())
    by_ids = PerClassAccuracy("ids").compute(predictions=answers, references=labels, num_classes=8)
    ranked = PerClassAccuracy("ranked").compute(
        predictions=top_classes(torch.from_numpy(scores), 2), references=labels, num_classes=8
    )
    assert by_ids == ranked == results


def test_agreement():
    scores, reference = samples()[0], samples(seed=1)[0]
    results = Agreement().compute(predictions=scores, references=reference, kl_divergence=True)
    share = (scores.argmax(axis=1) == reference.argmax(axis=1)).mean()
    logs = [torch.log_softmax(torch.from_numpy(values), dim=1) for values in (scores, reference)]
    expected = torch.nn.functional.kl_div(*logs, log_target=True, reduction="batchmean")
    assert results["agreement"] == share
    assert results["agreement_standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / 60))
    assert results["kl_divergence"] == pytest.approx(expected.item())
    probabilities = [log.exp().numpy() for log in logs]
    again = Agreement().compute(
        predictions=probabilities[0], references=probabilities[1], kl_divergence=True, from_probabilities=True
    )
    assert again == pytest.approx(results)
    ids = [values.argmax(axis=1) for values in (scores, reference)]
    assert Agreement("reference_ids").compute(predictions=scores, references=ids[1])["agreement"] == share
    assert Agreement("ids").compute(predictions=ids[0], references=ids[1])["agreement"] == share


def test_agreement_with_itself():
    scores, _ = samples()
    results = Agreement().compute(predictions=scores, references=scores, kl_divergence=True)
    assert results == {
        "agreement": 1.0,
        "agreement_standard_error": 0.0,
        "kl_divergence": 0.0,
        "kl_divergence_standard_error": 0.0,
    }


def test_negative_log_likelihood_agrees_with_scikit_learn():
    scores, labels = samples()
    probabilities = torch.softmax(torch.from_numpy(scores), dim=1).numpy()
    expected = log_loss(labels, probabilities, labels=range(8))
    metric = NegativeLogLikelihood()
    results = metric.compute(predictions=scores, references=labels)
    assert results["negative_log_likelihood"] == pytest.approx(expected)
    values = -np.log(probabilities[np.arange(60), labels])
    assert results["negative_log_likelihood_standard_error"] == pytest.approx(values.std(ddof=1) / math.sqrt(60))
    of_probabilities = metric.compute(predictions=probabilities, references=labels, from_probabilities=True)
    assert of_probabilities == pytest.approx(results)


# How evaluate collects


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_and_kinds_of_input_do_not_matter(metric, in_memory):
    predictions, references, arguments = inputs_of(metric)
    predictions = predictions.astype(np.float32)
    references = references.astype(np.float32) if metric is Agreement else references
    together = metric().compute(predictions=predictions, references=references, **arguments)
    collected = metric(keep_in_memory=in_memory)
    for start, stop in ((0, 1), (1, 20), (20, 59)):
        collected.add_batch(predictions=predictions[start:stop], references=references[start:stop])
    collected.add(prediction=predictions[59], reference=references[59])
    assert len(collected) == 60
    assert collected.compute(**arguments) == together
    for convert in (torch.from_numpy, np.ndarray.tolist):
        again = collected.compute(predictions=convert(predictions), references=convert(references), **arguments)
        assert again == together
    json.dumps(together)


def compute_as_one_of_two(process, cache, answers):
    scores, labels = samples()
    metric = TopKAccuracy(num_process=2, process_id=process, cache_dir=cache, experiment_id="test", timeout=60)
    for start in range(process * 7, len(labels), 14):  # every process takes every second seven
        metric.add_batch(predictions=scores[start : start + 7], references=labels[start : start + 7])
    answers.put((process, metric.compute()))


def test_two_processes(tmp_path):
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    started = [fork.Process(target=compute_as_one_of_two, args=(i, str(tmp_path), answers)) for i in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=300)
    assert [process.exitcode for process in started] == [0, 0]
    found = dict(answers.get() for _ in started)
    scores, labels = samples()
    assert found == {0: TopKAccuracy().compute(predictions=scores, references=labels), 1: None}


LOAD = """
import json, sys
import evaluate
from hf_video_tome.metrics import metric_path

for name in sys.argv[1:]:
    metric = evaluate.load(str(metric_path(name)))
    print(json.dumps([name, metric.name, type(metric).__module__, metric.inputs_description]))
    if name == "top_k_accuracy":
        ranked = evaluate.load(str(metric_path(name)), "ranked")
        print(json.dumps(ranked.compute(predictions=[[3, 1], [2, 0]], references=[1, 2], k=2)["top_2_accuracy"]))
"""


def test_every_metric_loads_from_its_file_without_a_network(tmp_path):
    names = [name_of(metric) for metric in METRICS]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    # Every proxy leads nowhere.
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", LOAD, *names]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert 1.0 in lines
    loaded = [line for line in lines if isinstance(line, list)]
    assert [line[0] for line in loaded] == names
    for metric, (_, name, module, usage) in zip(METRICS, loaded, strict=True):
        assert module.startswith("evaluate_modules.")
        assert name == metric().name
        assert "predictions: (N" in usage


@pytest.mark.parametrize("metric", METRICS)
def test_loaded_and_imported_metrics_agree(metric):
    predictions, references, arguments = inputs_of(metric)
    loaded = evaluate.load(str(metrics.metric_path(name_of(metric))))
    expected = metric().compute(predictions=predictions, references=references, **arguments)
    assert loaded.compute(predictions=predictions, references=references, **arguments) == expected
    assert loaded.description == metric().description
    assert loaded.description.endswith(".")


def test_metric_path_names_the_metrics():
    with pytest.raises(ValueError, match=r"name must be one of 'action_accuracy', .* got 'TopKAccuracy'"):
        metrics.metric_path("TopKAccuracy")


# What is refused


@pytest.mark.parametrize("metric", METRICS)
def test_malformed_predictions(metric):
    predictions, references, arguments = inputs_of(metric)

    def refuse(message, **changes):
        given = {"predictions": predictions, "references": references, **arguments, **changes}
        with pytest.raises(ValueError, match=message):
            metric(keep_in_memory=True).compute(**given)  # see `refuse` below

    broken = predictions.copy()
    broken[3, 1] = np.nan
    refuse(r"predictions.* must be finite .* sample 3, which has NaN", predictions=broken)
    refuse(
        "predictions must not have missing values, got 1",
        predictions=[[None, *predictions[0][1:]]] * 1 + predictions[1:].tolist(),
    )
    refuse("same number of values for every sample, got from 1 to", predictions=[[1.0], *predictions[1:].tolist()])
    refuse("predictions must have at least one sample, got none", predictions=[], references=[])
    refuse("Mismatch in the number of predictions", references=references[1:])
    with pytest.raises(ValueError, match=r"config_name must be one of 'default'.*, got 'other'"):
        metric("other")


@pytest.mark.parametrize("metric", [TopKAccuracy, PerClassAccuracy, NegativeLogLikelihood, ActionAccuracy])
@pytest.mark.parametrize("wrong", [-1, 8])
def test_labels_out_of_range(metric, wrong):
    predictions, references, arguments = inputs_of(metric)
    references = references.copy()
    references[5] = wrong
    with pytest.raises(ValueError, match=rf"references.* must be class ids from 0 to \d, got {wrong} for sample 5"):
        metric().compute(predictions=predictions, references=references, **arguments)


def refuse(metric, message, predictions, references, **arguments):
    metric.keep_in_memory = True  # a failed metric holds the lock of its file, for which the next one waits a second
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references, **arguments)


def test_arguments_that_do_not_fit():
    scores, labels = samples()
    refuse(TopKAccuracy(), "k must be integers from 1 to the 8 classes, got 9", scores, labels, k=[1, 9])
    refuse(TopKAccuracy("ranked"), "to the 2 class ids of each prediction, got 5", [[0, 1]], [1])
    refuse(TopKAccuracy("ranked"), "predictions must not name a class twice", [[1, 1]], [1], k=1)
    refuse(PerClassAccuracy(), "num_classes must be the 8 of the scores, got 9", scores, labels, num_classes=9)
    refuse(PerClassAccuracy("ids"), "num_classes must be given with the config 'ids'", labels, labels)
    refuse(PerClassAccuracy("ids"), "num_classes must be an integer", labels, labels, num_classes=0)
    refuse(PerClassAccuracy("ids"), "predictions must be class ids from 0 to 3", [0, 4], [0, 1], num_classes=4)
    refuse(Agreement(), r"references must have the shape of predictions, \(60, 8\)", scores, scores[:, :7])
    refuse(Agreement("ids"), "kl_divergence must be False", labels, labels, kl_divergence=True)
    refuse(Agreement("ids"), "from_probabilities must be False", labels, labels, from_probabilities=True)
    refuse(Agreement(), "references must be probabilities", [[0.5, 0.5]], [[1.0, 1.0]], from_probabilities=True)
    refuse(Agreement("reference_ids"), "references must be class ids from 0 to 7, got 8", scores[:1], [8])
    refuse(NegativeLogLikelihood(), "predictions must be probabilities", scores, labels, from_probabilities=True)


def test_action_arguments_that_do_not_fit():
    scores, labels = action_samples()
    groups = {"label_groups": GROUPS}
    refuse(ActionAccuracy(), "label_groups must be given", scores, labels)
    refuse(ActionAccuracy(), "label_groups must add up to the 14 scores", scores, labels, label_groups={"verb": 6})
    refuse(ActionAccuracy(), "label_groups must map names", scores, labels, label_groups={"action": 14})
    refuse(ActionAccuracy(), "to the 6 classes of the smallest group, got 7", scores, labels, k=7, **groups)
    refuse(ActionAccuracy(), r"shape \(samples, 2\), one per group", scores, labels[:, :1], **groups)
    refuse(
        ActionAccuracy(),
        r"predictions \(verb\) must be probabilities",
        scores,
        labels,
        from_probabilities=True,
        **groups,
    )
    ids = np.zeros((60, 2, 1), dtype=int)
    refuse(ActionAccuracy("ranked"), "predictions must be class ids of the shape", ids[:, :1], labels, k=1, **groups)
    refuse(ActionAccuracy("ranked"), "to the 1 class ids of each prediction", ids, labels, **groups)
    refuse(
        ActionAccuracy("ranked"),
        r"predictions \(noun\) .* from 0 to 7, got 8",
        ids + np.array([[0], [8]]),
        labels,
        k=1,
        **groups,
    )
    refuse(
        ActionAccuracy("ranked"), "from_probabilities must be False", ids, labels, from_probabilities=True, **groups
    )


def test_a_metric_works_again_after_an_error():
    scores, labels = samples()
    metric = TopKAccuracy()
    with pytest.raises(ValueError, match="k must be"):
        metric.compute(predictions=scores, references=labels, k=0)
    assert metric.compute(predictions=scores[:3], references=scores[:3].argmax(axis=1))["top_1_accuracy"] == 1
