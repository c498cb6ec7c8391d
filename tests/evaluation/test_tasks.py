from __future__ import annotations

import pytest
import torch
from transformers import VideoMAEConfig

from hf_video_tome.evaluation import Prediction, Task, classifier_tasks, match_labels, predict_labels

TWO_TASKS = {"verb": [0, 97], "noun": [97, 397]}


def test_a_classifier_has_one_task_unless_its_config_has_label_groups() -> None:
    assert classifier_tasks(VideoMAEConfig(num_labels=400)) == (Task("label", 0, 400),)
    assert classifier_tasks(VideoMAEConfig(num_labels=397, label_groups=TWO_TASKS)) == (
        Task("verb", 0, 97),
        Task("noun", 97, 300),
    )


def test_label_groups_are_saved_with_the_checkpoint(tmp_path) -> None:
    VideoMAEConfig(num_labels=397, label_groups=TWO_TASKS).save_pretrained(tmp_path)
    assert [task.name for task in classifier_tasks(VideoMAEConfig.from_pretrained(tmp_path))] == ["verb", "noun"]


@pytest.mark.parametrize(
    "groups",
    [
        {},
        [97, 300],
        {"verb": 97, "noun": 300},  # sizes: their order would be lost in the saved config
        {"verb": [0, 97]},
        {"verb": [0, 97], "noun": [97, 398]},
        {"verb": [0, 97], "noun": [98, 397]},
        {"verb": [0, 98], "noun": [97, 397]},
        {"verb": [0, 397], "noun": [397, 397]},
        {"verb": [0, 97.0], "noun": [97, 397]},
        {"verb": [0, 97, 397]},
        {"action": [0, 397]},
    ],
)
def test_label_groups_that_do_not_add_up_are_refused(groups: object) -> None:
    with pytest.raises(ValueError, match=r"label_groups must map .* = 397 outputs"):
        classifier_tasks(VideoMAEConfig(num_labels=397, label_groups=groups))


def test_each_task_has_labels_of_its_own() -> None:
    """Nouns that are all likelier than any verb, so that one ranking of all outputs would hold no verb."""
    names = dict(enumerate(["cut", "wash", "knife", "pan", "hob"]))
    config = VideoMAEConfig(id2label=names, label_groups={"noun": [2, 5], "verb": [0, 2]})
    found = predict_labels(torch.tensor([1.0, 2.0, 7.0, 9.0, 8.0]), config, top_k=2)
    assert list(found) == ["verb", "noun"]
    assert [(one.task, one.index, one.label) for labels in found.values() for one in labels] == [
        ("verb", 1, "wash"),
        ("verb", 0, "cut"),
        ("noun", 1, "pan"),
        ("noun", 2, "hob"),
    ]
    assert [one.probability for one in found["verb"]] == pytest.approx([0.731059, 0.268941], abs=1e-6)
    assert [one.probability for one in found["noun"]] == pytest.approx([0.665241, 0.244728], abs=1e-6)


def test_one_task_is_a_softmax_over_all_outputs() -> None:
    logits = torch.randn(7, dtype=torch.bfloat16)
    found = predict_labels(logits, VideoMAEConfig(num_labels=7), top_k=10)
    assert list(found) == ["label"]
    expected = logits.float().softmax(-1).sort(descending=True)
    assert [one.index for one in found["label"]] == expected.indices.tolist()
    assert [one.probability for one in found["label"]] == pytest.approx(expected.values.tolist())
    assert [one.label for one in found["label"]] == [f"LABEL_{index}" for index in expected.indices.tolist()]
    assert predict_labels(logits, VideoMAEConfig(num_labels=7)) == {"label": found["label"][:1]}


def test_a_label_without_a_name_is_its_index_in_its_task() -> None:
    names = {0: "cut", 1: "wash", 2: "pan", 30: "numbered otherwise"}
    config = VideoMAEConfig(id2label=names, label_groups={"verb": [0, 2], "noun": [2, 4]})
    found = predict_labels(torch.tensor([1.0, 0.0, 0.0, 1.0]), config)
    assert found["verb"] == [Prediction("verb", 0, "cut", pytest.approx(0.731059))]
    assert found["noun"] == [Prediction("noun", 1, "1", pytest.approx(0.731059))]


def test_logits_of_something_else_are_refused() -> None:
    config = VideoMAEConfig(num_labels=4)
    for shape in ((5,), (1, 4), ()):
        with pytest.raises(
            ValueError, match=r"`logits` must have the shape \(num_labels,\) = \(4,\) of one clip, got"
        ):
            predict_labels(torch.zeros(shape), config)
    with pytest.raises(ValueError, match="`top_k` must be at least 1, got 0"):
        predict_labels(torch.zeros(4), config, top_k=0)


TASK = Task("label", 0, 3)
OUTPUTS = {0: "Pushing [something] off", 1: "riding a bike", 2: "answering questions"}


def test_classes_are_matched_by_name_whatever_their_order_and_spelling() -> None:
    names = ["riding_a_bike", "Pushing something off"]
    assert match_labels(names, TASK, OUTPUTS) == [1, 0]


def test_numbers_are_taken_where_a_side_has_no_names() -> None:
    assert match_labels(None, TASK, OUTPUTS) is None
    assert match_labels(["a", "b", "c"], TASK, {index: f"LABEL_{index}" for index in range(3)}) is None
    assert match_labels(["answering questions", "riding a bike"], TASK, OUTPUTS, by_name=False) is None


def test_a_class_that_the_classifier_does_not_know_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match=r"1 of the data set's 2 label classes .*'abseiling'"):
        match_labels(["abseiling", "riding a bike"], TASK, OUTPUTS)


def test_more_classes_than_outputs_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 4 label classes, the classifier 3 outputs"):
        match_labels(list("abcd"), TASK, {}, by_name=False)


def test_the_numbers_of_some_classes_are_not_taken_for_those_of_all() -> None:
    with pytest.raises(ValueError, match="has 2 label classes with names, the classifier 3 outputs without"):
        match_labels(["a", "c"], TASK, {})
    assert match_labels(["a", "c"], TASK, {}, by_name=False) is None


def test_names_are_demanded_where_they_are_to_be_matched() -> None:
    with pytest.raises(ValueError, match="no names for its label classes"):
        match_labels(None, TASK, OUTPUTS, by_name=True)
    with pytest.raises(ValueError, match="are no outputs of the classifier"):
        match_labels(["a"], TASK, {}, by_name=True)


def test_two_outputs_of_one_name_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match="two label outputs called 'Riding a bike'"):
        match_labels(["riding a bike"], TASK, OUTPUTS | {2: "Riding a bike"})


def test_a_group_has_its_own_names() -> None:
    task = Task("noun", 2, 2)
    assert match_labels(["pan", "tap"], task, {0: "pan", 1: "x", 2: "tap", 3: "pan"}) == [1, 0]
