from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hf_video_tome.evaluation import Task
from hf_video_tome.evaluation.results import predict_video, summarize

ONE = (Task("label", 0, 7),)
TWO = (Task("verb", 0, 3), Task("noun", 3, 4))
LOGITS = torch.randn(6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_view_is_its_softmax() -> None:
    row = predict_video(LOGITS[:1], ONE, (2,), top_k=5)
    expected = LOGITS[0].log_softmax(-1)
    assert row["label"] == 2
    assert row["label_top"] == expected.topk(5).indices.tolist()
    assert row["label_log_probabilities"] == pytest.approx(expected.topk(5).values.tolist(), abs=1e-6)
    assert row["label_nll"] == pytest.approx(-expected[2].item(), abs=1e-6)
    assert row["label_rank"] == (expected > expected[2]).sum().item()


def test_views_are_averaged_as_probabilities() -> None:
    row = predict_video(LOGITS, ONE, (2,), top_k=7)
    expected = LOGITS.softmax(-1).mean(0)
    assert row["label_top"] == expected.argsort(descending=True).tolist()
    assert row["label_nll"] == pytest.approx(-math.log(expected[2]), abs=1e-6)


def test_each_task_has_its_own_softmax_and_the_action_is_all_of_them() -> None:
    row = predict_video(LOGITS[:1], TWO, (1, 2), top_k=5)
    verb, noun = LOGITS[0, :3].log_softmax(-1), LOGITS[0, 3:].log_softmax(-1)
    assert row["verb_top"] == verb.argsort(descending=True).tolist()
    assert row["noun_nll"] == pytest.approx(-noun[2].item(), abs=1e-6)
    pairs = verb[:, None] + noun
    assert row["action_rank"] == (pairs > pairs[1, 2]).sum().item()
    assert row["action_nll"] == pytest.approx(-pairs[1, 2].item(), abs=2e-6)


def test_without_an_answer_there_is_a_prediction_but_no_score() -> None:
    row = predict_video(LOGITS[:1], TWO, None)
    assert len(row["verb_top"]) == 3
    assert len(row["noun_top"]) == 4
    assert {row[name] for name in ("verb", "verb_rank", "verb_nll", "action_rank", "action_nll")} == {None}


def run_of(num_videos: int, num_settings: int) -> dict[str, object]:
    setting = {"changes": {}, "resolved": {}, "token_counts": None}
    return {"num_videos": num_videos, "settings": [setting] * num_settings, "tasks": {"label": 7}}


def rows_of(logits: torch.Tensor, labels: list[int] | None, setting: int = 0) -> list[dict[str, object]]:
    return [
        {"position": index, "video_id": f"v{index}", "setting": setting}
        | predict_video(clip[None], ONE, None if labels is None else (labels[index],))
        for index, clip in enumerate(logits)
    ]


LABELS = [0, 1, 2, 3, 4, 5]


def test_accuracies_are_those_of_the_predictions() -> None:
    rows = rows_of(LOGITS, LABELS)
    task = summarize(run_of(6, 1), rows, ONE).settings[0].tasks["label"]
    target = torch.tensor(LABELS)
    accuracy = (LOGITS.argmax(-1) == target).double().mean().item()
    assert task.top_1.value == pytest.approx(accuracy)
    assert task.top_1.standard_error == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 6))
    in_five = (LOGITS.topk(5).indices == target[:, None]).any(-1)
    assert task.top_5.value == pytest.approx(in_five.double().mean().item())
    losses = torch.nn.functional.cross_entropy(LOGITS, target, reduction="none")
    assert task.nll == pytest.approx(losses.mean().item(), abs=1e-6)
    assert task.nll_standard_error == pytest.approx(losses.std().item() / math.sqrt(6), abs=1e-6)


def test_per_class_accuracy_counts_only_classes_that_occur() -> None:
    answers = LOGITS.argmax(-1).tolist()
    labels = [answers[0], answers[1], (answers[2] + 1) % 7, answers[0], answers[4], answers[5]]
    task = summarize(run_of(6, 1), rows_of(LOGITS, labels), ONE).settings[0].tasks["label"]
    expected = {}
    for label in sorted(set(labels)):
        own = [answer == label for answer, truth in zip(answers, labels, strict=True) if truth == label]
        expected[label] = (pytest.approx(sum(own) / len(own)), len(own))
    assert task.per_class == expected
    assert task.mean_class_accuracy == pytest.approx(np.mean([share for share, _ in task.per_class.values()]))
    assert 0 < task.mean_class_accuracy < 1


def test_settings_are_compared_with_the_first_on_the_same_videos() -> None:
    changed = LOGITS.clone()
    changed[0] = -changed[0]
    labels = LOGITS.argmax(-1).tolist()
    rows = rows_of(LOGITS, labels) + rows_of(changed, labels, setting=1)
    first, second = summarize(run_of(6, 2), rows, ONE).settings
    assert first.agreement is None
    assert first.top_1_difference is None
    assert second.agreement.value == pytest.approx(5 / 6)
    assert second.top_1_difference.value == pytest.approx(-1 / 6)
    gains = np.array([-1, 0, 0, 0, 0, 0])
    assert second.top_1_difference.standard_error == pytest.approx(gains.std(ddof=1) / math.sqrt(6))


def test_an_earlier_evaluation_can_be_the_reference() -> None:
    rows = rows_of(LOGITS, LABELS)
    reference = {row["video_id"]: row for row in rows_of(LOGITS.flip(-1), LABELS)}
    (setting,) = summarize(run_of(6, 1), rows, ONE, reference).settings
    same = LOGITS.argmax(-1) == LOGITS.flip(-1).argmax(-1)
    assert setting.agreement.value == pytest.approx(same.double().mean().item())


def test_only_videos_that_both_could_read_are_compared() -> None:
    labels = LOGITS.argmax(-1).tolist()
    reference = {row["video_id"]: row for row in rows_of(LOGITS, labels)[:4]}
    (setting,) = summarize(run_of(6, 1), rows_of(LOGITS, labels), ONE, reference).settings
    assert setting.num_compared == 4
    assert (setting.agreement.value, setting.top_1_difference.value) == (1, 0)
    (alone,) = summarize(run_of(6, 1), rows_of(LOGITS, labels), ONE, {}).settings
    assert (alone.num_compared, alone.agreement, alone.top_1_difference) == (0, None, None)


def test_a_reference_without_labels_is_not_taken_for_right() -> None:
    reference = {row["video_id"]: row for row in rows_of(LOGITS, None)}
    (setting,) = summarize(run_of(6, 1), rows_of(LOGITS, LABELS), ONE, reference).settings
    assert setting.agreement.value == 1
    assert setting.top_1_difference is None


def test_unreadable_videos_are_listed_and_not_counted() -> None:
    rows = rows_of(LOGITS, LABELS)
    rows[3] = {"position": 3, "video_id": "v3", "error": "no such file"}
    results = summarize(run_of(6, 1), rows, ONE)
    assert results.failures == {"v3": "no such file"}
    assert (results.num_videos, results.num_labelled) == (6, 5)
    kept = [0, 1, 2, 4, 5]
    accuracy = (LOGITS.argmax(-1) == torch.tensor(LABELS))[kept].double().mean().item()
    assert results.settings[0].tasks["label"].top_1.value == pytest.approx(accuracy)


def test_without_labels_there_is_agreement_but_no_accuracy() -> None:
    rows = rows_of(LOGITS, None) + rows_of(LOGITS, None, setting=1)
    results = summarize(run_of(6, 2), rows, ONE)
    assert results.num_labelled == 0
    assert results.settings[1].tasks == {}
    assert results.settings[1].top_1_difference is None
    assert results.settings[1].agreement.value == 1


def test_nothing_readable_is_a_result_as_well() -> None:
    rows = [{"position": index, "video_id": f"v{index}", "error": "empty"} for index in range(2)]
    results = summarize(run_of(2, 2), rows, ONE)
    assert len(results.failures) == 2
    assert [setting.main for setting in results.settings] == [None, None]


def test_results_are_json_safe() -> None:
    import json

    results = summarize(run_of(6, 1), rows_of(LOGITS, LABELS), ONE)
    assert json.loads(json.dumps(results.to_dict(), allow_nan=False))["num_videos"] == 6
