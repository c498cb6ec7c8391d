from __future__ import annotations

import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VideoMAEConfig

from hf_video_tome.data.class_names import match_names
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
        with pytest.raises(ValueError, match=r"logits must have the shape \(num_labels,\) = \(4,\) of one clip, got"):
            predict_labels(torch.zeros(shape), config)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        predict_labels(torch.zeros(4), config, top_k=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_that_are_not_finite_are_no_answer(value: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(4, dtype=dtype)
    logits[2] = value
    with pytest.raises(ValueError, match="the logits are not finite: the model may need a wider dtype"):
        predict_labels(logits, VideoMAEConfig(num_labels=4))


TASK = Task("label", 0, 3)
OUTPUTS = {0: "Pushing [something] off", 1: "riding a bike", 2: "answering questions"}


def test_classes_are_matched_by_name_whatever_their_order_and_spelling() -> None:
    names = ["riding_a_bike", "Pushing something off"]
    assert match_labels(names, TASK, OUTPUTS) == [1, 0]


def unnamed(size: int) -> dict[int, str]:
    return {index: f"LABEL_{index}" for index in range(size)}


def test_numbers_are_taken_where_a_side_has_no_names() -> None:
    assert match_labels(None, TASK, OUTPUTS) is None
    assert match_labels(["run", "jump", "sit"], TASK, unnamed(3)) is None  # an order that somebody chose
    assert match_labels(["answering questions", "riding a bike"], TASK, OUTPUTS, by_name=False) is None


@pytest.mark.parametrize("names", [["jump", "run", "sit"], ["class1", "class10", "class2"], ["0", "1", "none"]])
@pytest.mark.parametrize("outputs", [unnamed(3), {}])
def test_a_place_that_comes_from_sorting_has_to_be_confirmed(names: list[str], outputs: dict[int, str]) -> None:
    with pytest.raises(ValueError, match=rf"confirm that the index of a name \('{names[0]}', .*--labels number"):
        match_labels(names, TASK, outputs)
    assert match_labels(names, TASK, outputs, by_name=False) is None


@pytest.mark.parametrize("outputs", [unnamed(12), {}, {index: f"action {index}" for index in range(12)}])
@pytest.mark.parametrize("by_name", [None, False])
def test_names_that_are_integers_have_that_number(outputs: dict[int, str], by_name: bool | None) -> None:
    """Sorted as strings, folder 10 would be class 2."""
    task = Task("label", 0, 12)
    folders = sorted(map(str, range(12)))
    assert match_labels(folders, task, outputs, by_name) == [int(name) for name in folders]
    assert match_labels(["003", "011"], task, outputs, by_name) == [3, 11]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 399), min_size=1), st.booleans())
def test_any_part_of_numbered_classes_has_these_numbers(numbers: set[int], padded: bool) -> None:
    names = sorted(f"{number:03d}" if padded else str(number) for number in numbers)
    found = match_labels(names, Task("label", 0, 400), unnamed(400))
    assert (list(range(len(names))) if found is None else found) == [int(name) for name in names]


def test_classes_that_are_numbered_only_need_not_all_be_outputs() -> None:
    assert match_labels([str(index) for index in range(97)], TASK, unnamed(3)) is None
    assert match_labels([str(index) for index in range(97)], TASK, OUTPUTS) is None


def test_default_names_of_outputs_are_names() -> None:
    """Sorted as strings, LABEL_10 comes before LABEL_2."""
    folders = sorted(f"LABEL_{index}" for index in range(12))
    assert match_labels(folders, Task("label", 0, 12), unnamed(12)) == [int(name[6:]) for name in folders]
    assert match_labels(["label-7", "Label_11"], Task("label", 0, 12), unnamed(12)) == [7, 11]
    # Those of the second task of a head count from the first output.
    assert match_labels(["LABEL_11", "LABEL_9"], Task("noun", 8, 4), unnamed(12)) == [3, 1]


def test_outputs_that_are_called_by_numbers_are_matched_by_name() -> None:
    digits = {0: "3", 1: "7", 2: "0"}
    assert match_labels(["0", "3"], TASK, digits) == [2, 0]
    with pytest.raises(ValueError, match=r"has no outputs for 1 of the dataset's 2 label classes .*'1'"):
        match_labels(["0", "1"], TASK, digits)
    with pytest.raises(ValueError, match=r"has no outputs for 1 of the dataset's 1 label classes .*'1'"):
        match_labels(["1"], TASK, digits)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1", "2", "3"], "class '3' is not the number of one of the classifier's 3 outputs, 0 to 2"),
        (["01", "1"], "classes '01' and '1' are the same number"),
    ],
)
def test_numbers_that_are_none_of_the_outputs_are_refused(names: list[str], message: str) -> None:
    for by_name in (None, False):
        with pytest.raises(ValueError, match=message):
            match_labels(names, TASK, unnamed(3), by_name)


def test_a_class_that_the_classifier_does_not_know_is_an_error_not_a_guess() -> None:
    with pytest.raises(ValueError, match=r"1 of the dataset's 2 label classes .*'abseiling'"):
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
    with pytest.raises(ValueError, match="the classifier has no outputs for"):
        match_labels(["a"], TASK, {}, by_name=True)


def test_the_exact_name_comes_first() -> None:
    outputs = OUTPUTS | {0: "Riding a Bike"}
    assert match_labels(["riding a bike", "Riding a Bike"], TASK, outputs) == [1, 0]
    assert match_labels(["C++", "c"], TASK, {0: "C", 1: "C++", 2: "C#"}) == [1, 0]


def test_two_outputs_of_one_name_cannot_be_matched() -> None:
    for other in ("riding a bike", "riding_a BIKE"):
        with pytest.raises(
            ValueError, match=r"two label outputs (called 'riding|that the class 'Riding a bike' could)"
        ):
            match_labels(["Riding a bike"], TASK, OUTPUTS | {2: other})


@pytest.mark.parametrize("names", [["riding a bike", "Riding a bike"], ["riding_a_bike", "riding-a-bike"]])
def test_two_classes_on_one_output_are_an_error(names: list[str]) -> None:
    with pytest.raises(
        ValueError, match=f"classes '{names[0]}' and '{names[1]}' both mean the output 'riding a bike'"
    ):
        match_labels(names, TASK, OUTPUTS)


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["volume+", "volume-"], ["volume-", "volume+", "mute"]),
        (["C", "C++", "C#"], ["C#", "C++", "C"]),
        (["किताब", "कीताब"], ["कीताब", "किताब"]),
        (["👍", "👎"], ["👎", "👍"]),
        (["caf\u0065\u0301", "run"], ["run", "caf\u00e9"]),
        (["caf\u00e9", "run"], ["run", "Cafe\u0301"]),
        (["50%", "50", "-50"], ["50", "-50", "50%"]),
        (["hand_washing", "ÉTUDE"], ["étude (piano)", "Étude", "Hand-washing!"]),
    ],
)
def test_marks_and_symbols_tell_names_apart(names: list[str], outputs: list[str]) -> None:
    expected = {
        "caf\u0065\u0301": "caf\u00e9",
        "caf\u00e9": "Cafe\u0301",
        "hand_washing": "Hand-washing!",
        "ÉTUDE": "Étude",
    }
    order = match_labels(names, Task("label", 0, len(outputs)), dict(enumerate(outputs)))
    wanted = [outputs.index(name) if name in outputs else outputs.index(expected[name]) for name in names]
    assert order == wanted


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("volume-", "volume+"),
        ("volume-", "volume"),
        ("C#", "C"),
        ("-5", "5"),
        ("कीताब", "किताब"),
        ("👍", "👎"),
        ("50%", "50"),
    ],
)
def test_names_that_differ_by_a_sign_are_never_the_same(name: str, output: str) -> None:
    with pytest.raises(ValueError, match="has no outputs for 1 of the dataset's 1 label classes"):
        match_labels([name], Task("label", 0, 2), {0: output, 1: "mute"}, by_name=True)


WORDS = st.text(st.sampled_from("ab AB_-+#'[]()ीि👍e\u0301\u00e9"), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, unique=True, max_size=4), st.lists(WORDS, unique=True, max_size=4))
def test_no_two_names_are_ever_matched_with_the_same_one(names: list[str], others: list[str]) -> None:
    found = [index for index in match_names(names, others) if index is not None]
    assert len(set(found)) == len(found)
    # Whose spelling is the only one of its kind on both sides is found from either side.
    back = match_names(others, names)
    assert all(
        back[index] == position for position, index in enumerate(match_names(names, others)) if index is not None
    )
    # Only case, punctuation and normal forms are ever passed over.
    for position, index in enumerate(match_names(names, others)):
        if index is not None:
            kept = [
                [c for c in unicodedata.normalize("NFC", name.casefold()) if unicodedata.category(c)[0] not in "PZ"]
                for name in (names[position], others[index])
            ]
            assert kept[0] == kept[1]


def test_a_group_has_its_own_names() -> None:
    task = Task("noun", 2, 2)
    assert match_labels(["pan", "tap"], task, {0: "pan", 1: "x", 2: "tap", 3: "pan"}) == [1, 0]
