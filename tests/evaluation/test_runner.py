"""Evaluation end to end: real video files through a tiny model with random weights."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.data import ClipTransform
from hf_video_tome.data.sampling import ClipSampling
from hf_video_tome.data.video.decoding import probe_video, read_frames
from hf_video_tome.evaluation import EvaluationResults, Progress, evaluate
from hf_video_tome.evaluation.journal import Journal, JournalRemovedError, write_atomically

from ..classified_videos import FRAMES, NUM_VIDEOS, UNREADABLE, make_model

SAMPLING = ClipSampling(FRAMES, sampling_rate=2, strategy="center")
SETTINGS: list[dict[str, Any]] = [{"r": 0}, {"r": 8}, {"r": 8, "mode": "random_merge"}]
FILES = {"predictions.jsonl", "results.json", "run.json", "timing.json"}


@pytest.fixture
def run(checkpoint: Path, rows: list[dict[str, Any]], tmp_path: Path) -> Callable[..., EvaluationResults]:
    def run(output: str = "out", **changes: Any) -> EvaluationResults:
        model = changes.pop("model", None) or AutoModelForVideoClassification.from_pretrained(checkpoint)
        arguments = {"settings": SETTINGS, "batch_size": 4, "num_workers": 0, "match_labels_by_name": False, **changes}
        return evaluate(
            model,
            arguments.pop("dataset", rows),
            ClipTransform.from_pretrained(checkpoint),
            arguments.pop("sampling", SAMPLING),
            tmp_path / output,
            **arguments,
        )

    return run


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_the_predictions_are_those_of_the_model_on_each_clip(
    run: Callable[..., EvaluationResults], checkpoint: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    run(settings=[{"r": 0}, {"r": 8}])
    found = {(row["position"], row.get("setting")): row for row in predictions(tmp_path / "out")}
    model = AutoModelForVideoClassification.from_pretrained(checkpoint)
    transform = ClipTransform.from_pretrained(checkpoint)
    for position, row in enumerate(rows):
        if position in UNREADABLE:
            assert set(found[position, None]) == {"position", "video_id", "error"}
            continue
        (indices,) = SAMPLING.sample(probe_video(row["video"]["path"]).num_frames)
        pixel_values = transform(read_frames(row["video"]["path"], indices))[None]
        for setting, r in enumerate((0, 8)):
            model.set_token_merging(r=r)
            with torch.inference_mode():
                expected = model(pixel_values).logits[0].log_softmax(-1)
            prediction = found[position, setting]
            assert prediction["label"] == row["label"]
            assert prediction["token_merging"] == {"r": r}
            assert prediction["label_top"] == expected.argsort(descending=True).tolist()
            assert prediction["label_nll"] == pytest.approx(-expected[row["label"]].item(), abs=1e-4)


def test_every_video_counts_once_and_what_cannot_be_read_is_listed(run, tmp_path: Path) -> None:
    results = run()
    assert {video_id: reason.split()[0] for video_id, reason in results.failures.items()} == {
        "clip_02": "no",
        "clip_07": "the",
        "clip_08": "not",
    }
    assert (results.num_videos, results.num_labelled) == (NUM_VIDEOS, NUM_VIDEOS - len(UNREADABLE))
    rows = predictions(tmp_path / "out")
    keys = [(row["position"], row.get("setting", -1)) for row in rows]
    assert keys == sorted(
        (position, setting)
        for position in range(NUM_VIDEOS)
        for setting in ([-1] if position in UNREADABLE else range(len(SETTINGS)))
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert json.loads((tmp_path / "out" / "results.json").read_text())["failures"] == results.failures


def test_settings_are_measured_in_one_pass_and_put_back(run, checkpoint: Path) -> None:
    model = AutoModelForVideoClassification.from_pretrained(checkpoint, token_merging_r=3)
    model.train()
    before = model.config.token_merging_settings()
    results = run(model=model, settings=[{}, {"r": 0}, {"r": 8, "mode": "hybrid", "threshold": 0.5}, {"mode": "drop"}])
    assert [setting.token_counts[-1] for setting in results.settings] == [52, 64, 32, 52]
    assert results.settings[3].resolved["threshold"] is None
    assert model.config.token_merging_settings() == before
    assert model.training


def test_a_stock_model_can_be_evaluated_as_it_is(run) -> None:
    # The same weights in memory: kernels may round otherwise where a tensor begins at another address.
    model = make_model()
    stock = run("stock", model=model, settings=[{}])
    merging = run("merging", model=hf_video_tome.apply_token_merging(model), settings=[{"r": 0}])
    assert stock.settings[0].tasks == merging.settings[0].tasks
    assert stock.settings[0].token_counts is None
    with pytest.raises(ValueError, match="apply_token_merging"):
        run("refused", model=make_model(), settings=[{"r": 8}])


def test_workers_and_batches_do_not_change_the_predictions(run, tmp_path: Path) -> None:
    run("a")
    run("b", num_workers=2)
    assert (tmp_path / "a" / "predictions.jsonl").read_text() == (tmp_path / "b" / "predictions.jsonl").read_text()
    assert (tmp_path / "a" / "results.json").read_text() == (tmp_path / "b" / "results.json").read_text()
    run("c", batch_size=1, settings=SETTINGS[:2])
    for one, other in zip(
        (row for row in predictions(tmp_path / "a") if row.get("setting") != 2),
        predictions(tmp_path / "c"),
        strict=True,
    ):
        assert one.get("label_top") == other.get("label_top")


def test_views_are_averaged(run, checkpoint: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    sampling = ClipSampling(FRAMES, strategy="uniform", num_clips=2, num_crops=3)
    run(sampling=sampling, settings=[{"r": 0}], batch_size=3)
    (found,) = [row for row in predictions(tmp_path / "out") if row["position"] == 1]
    transform = ClipTransform.from_pretrained(checkpoint)
    path = rows[1]["video"]["path"]
    views = torch.cat(
        [
            transform.crop_views(read_frames(path, indices), 3)
            for indices in sampling.sample(probe_video(path).num_frames)
        ]
    )
    assert len(views) == 6
    model = AutoModelForVideoClassification.from_pretrained(checkpoint)
    with torch.inference_mode():
        probabilities = model(transform.normalize(views)).logits.softmax(-1).mean(0)
    assert found["label_top"] == probabilities.argsort(descending=True).tolist()
    assert found["label_nll"] == pytest.approx(-probabilities[rows[1]["label"]].log().item(), abs=1e-4)


def test_two_tasks_are_scored_apart_and_together(run, rows: list[dict[str, Any]]) -> None:
    model = make_model(label_groups={"verb": [0, 2], "noun": [2, 5]})
    changed = [row | {"verb": index % 2, "noun": index % 3} for index, row in enumerate(rows)]
    results = run(model=model, dataset=changed, settings=[{}])
    tasks = results.settings[0].tasks
    assert list(tasks) == ["verb", "noun", "action"]
    assert tasks["action"].top_1.value <= min(tasks["verb"].top_1.value, tasks["noun"].top_1.value)
    assert tasks["action"].nll == pytest.approx(tasks["verb"].nll + tasks["noun"].nll, abs=1e-5)
    assert results.settings[0].main == tasks["action"]


def test_an_earlier_evaluation_can_be_the_reference(run, tmp_path: Path) -> None:
    run("before", settings=[{"r": 0}])
    results = run("after", settings=[{"r": 0}, {"r": 16}], reference=tmp_path / "before")
    assert results.settings[0].agreement.value == 1
    together = run("together", settings=[{"r": 0}, {"r": 16}])
    assert results.settings[1].agreement == together.settings[1].agreement
    assert results.run["reference"]["folder"] == str(tmp_path / "before")
    with pytest.raises(ValueError, match="its reference was"):
        run("after", settings=[{"r": 0}, {"r": 16}], resume=True)


def test_a_reference_must_be_comparable(run, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=message):
            run("x", reference=tmp_path / "before", settings=[{}], **changes)

    refused("reference: .*before is not the output folder of a finished evaluation")
    run("before", settings=[{}], dataset=rows[:-1])
    refused("lacks 1 videos, such as 'clip_12'")
    refused("has other labels for 'clip_00'", dataset=[row | {"label": (row["label"] + 1) % 5} for row in rows[:-1]])
    names = dict(enumerate(["a", "b", "c", "d", "e"]))
    refused("has other outputs of the classifier", model=make_model(id2label=names), dataset=rows[:-1])
    two = make_model(label_groups={"verb": [0, 2], "noun": [2, 5]})
    refused("has other tasks", model=two, dataset=[row | {"verb": 0, "noun": 0} for row in rows[:-1]])


def test_videos_that_the_reference_could_not_read_are_left_out(
    run, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    run("before", settings=[{}])
    whole = [row | {"video": rows[0]["video"]} if index in UNREADABLE else row for index, row in enumerate(rows)]
    results = run("after", settings=[{}], dataset=whole, reference=tmp_path / "before")
    assert results.num_labelled == NUM_VIDEOS
    assert results.settings[0].num_compared == NUM_VIDEOS - len(UNREADABLE)
    assert results.settings[0].agreement.value == 1


def test_progress_covers_all_videos(run) -> None:
    seen: list[Progress] = []
    results = run(on_progress=seen.append)
    assert [progress.done for progress in seen] == [0, 4, 8, 12, 13]
    last = seen[-1]
    assert (last.total, last.failed) == (NUM_VIDEOS, 3)
    assert last.accuracy == pytest.approx([setting.main.top_1.value for setting in results.settings])
    assert 0 <= last.waiting <= 1


# --- interruptions
class Interrupted(BaseException):
    pass


def interrupt(run: Callable[..., Any], after: int, **arguments: Any) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= after:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(on_progress=stop, **arguments)


@pytest.mark.parametrize("after", [0, 4, 12])
@pytest.mark.parametrize("cut", [0, 7])
def test_a_resumed_evaluation_ends_in_the_same_files(run, tmp_path: Path, after: int, cut: int) -> None:
    run("whole")
    interrupt(run, after, output="resumed")
    journal = Journal(tmp_path / "resumed", 0)
    assert not (tmp_path / "resumed" / "predictions.jsonl").exists()
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[: len(content) - cut])  # killed while writing
    seen: list[Progress] = []
    run("resumed", resume=True, on_progress=seen.append)
    assert seen[0].done == (0 if cut and after == 4 else after - 4 if cut else after) or not after
    for name in ("predictions.jsonl", "results.json", "run.json"):
        assert (tmp_path / "resumed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == FILES


def test_resuming_what_is_finished_changes_nothing(run, tmp_path: Path) -> None:
    first = run()
    before = (tmp_path / "out" / "predictions.jsonl").read_text()
    assert run(resume=True) == first
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == before


def test_results_are_never_overwritten_unasked(run) -> None:
    run()
    with pytest.raises(FileExistsError, match="has an evaluation already"):
        run()
    assert run(overwrite=True, settings=SETTINGS[:1]).settings[0].main is not None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"settings": SETTINGS[:2]}, "settings"),
        ({"batch_size": 5}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"sampling": ClipSampling(FRAMES)}, "sampling"),
        ({"identity": {"model": "another"}}, "model"),
    ],
)
def test_only_the_same_evaluation_can_be_resumed(run, changes: dict[str, Any], field: str) -> None:
    interrupt(run, 4)
    with pytest.raises(ValueError, match=f"cannot be resumed: its {field} was"):
        run(resume=True, **changes)


def test_other_weights_or_videos_are_another_evaluation(run, rows: list[dict[str, Any]]) -> None:
    interrupt(run, 4)
    with pytest.raises(ValueError, match="its weights was"):
        run(resume=True, model=hf_video_tome.apply_token_merging(make_model(hidden_act="relu").half().float()))
    with pytest.raises(ValueError, match="its num_videos was"):
        run(resume=True, dataset=rows[1:])


def test_videos_that_have_come_back_can_be_tried_again(run, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    run()
    source = Path(rows[2]["video"]["path"])
    source.write_bytes(Path(rows[1]["video"]["path"]).read_bytes())
    try:
        assert len(run(resume=True).failures) == 3
        results = run(resume=True, retry_failed=True)
        assert set(results.failures) == {"clip_07", "clip_08"}
        run("fresh")
        assert (tmp_path / "out" / "predictions.jsonl").read_text() == (
            tmp_path / "fresh" / "predictions.jsonl"
        ).read_text()
    finally:
        source.unlink()


# --- what a disk does
@pytest.mark.parametrize("timing", [None, "{}", '{"clips_per_second": []}', "[1]", "{"])
def test_times_that_were_not_written_do_not_keep_a_finished_evaluation_from_resuming(
    run, tmp_path: Path, timing: str | None
) -> None:
    first, path = run(settings=SETTINGS[:2]), tmp_path / "out" / "timing.json"
    path.unlink() if timing is None else path.write_text(timing)
    assert run(settings=SETTINGS[:2], resume=True) == first
    times = json.loads(path.read_text())
    assert times["clips_per_second"] == [None, None]  # nothing ran, so that nothing was measured
    assert (times["videos"], times["seconds"]) == (0, 0)


def test_an_evaluation_that_ran_out_of_disk_at_the_very_end_can_be_resumed(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_video_tome.evaluation import output

    def full(path: Path, text: str) -> None:
        if path.name == "timing.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            run(settings=[{}])
    run("whole", settings=[{}])
    run(settings=[{}], resume=True)
    for name in ("predictions.jsonl", "results.json"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\ufeff{}", '"run"'])
def test_a_damaged_run_file_is_named_and_can_be_overwritten(run, tmp_path: Path, content: str) -> None:
    interrupt(run, 4)
    (tmp_path / "out" / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json is damaged: .*--overwrite"):
        run(resume=True)
    assert run(overwrite=True, settings=[{}]).num_videos == NUM_VIDEOS


def test_a_damaged_journal_is_named_and_can_be_overwritten_or_cut(run, tmp_path: Path) -> None:
    whole = run("whole")
    interrupt(run, 8)
    path = Journal(tmp_path / "out", 0).path
    lines = path.read_bytes().splitlines(keepends=True)
    digit = lines[2].rindex(b"_nll") + 8
    changed = lines[2][:digit] + (b"1" if lines[2][digit : digit + 1] != b"1" else b"2") + lines[2][digit + 1 :]
    path.write_bytes(b"".join([*lines[:2], changed, *lines[3:]]))
    with pytest.raises(ValueError, match=r"journal-00000\.jsonl: line 3 is damaged \(its checksum does not match\)"):
        run(resume=True)
    with pytest.raises(FileExistsError, match="has an evaluation already"):
        run()
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))  # as the error advises
    assert run(resume=True) == whole


def test_a_changed_digit_in_finished_predictions_is_refused(run, tmp_path: Path) -> None:
    run("before", settings=[{}])
    path = tmp_path / "before" / "predictions.jsonl"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b'_rank": 0', b'_rank": 2', 1))
    message = r"predictions\.jsonl is damaged or was changed: .*results\.json"
    with pytest.raises(ValueError, match=message):
        run("before", settings=[{}], resume=True)
    with pytest.raises(ValueError, match=f"reference: .*{message}"):
        run("after", settings=[{}], reference=tmp_path / "before")
    (tmp_path / "before" / "results.json").unlink()  # as the error advises, and as older versions left it
    path.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ValueError, match=r"predictions\.jsonl is damaged: its last line is incomplete"):
        run("after", settings=[{}], reference=tmp_path / "before")
    path.write_bytes(sound)
    assert run("after", settings=[{}], reference=tmp_path / "before").settings[0].agreement.value == 1


@pytest.mark.parametrize("after", [0, 4, 12, 13])
def test_an_output_folder_that_is_removed_ends_the_evaluation_at_once(run, tmp_path: Path, after: int) -> None:
    seen: list[int] = []

    def remove(progress: Progress) -> None:
        seen.append(progress.done)
        if progress.done == after:
            shutil.rmtree(tmp_path / "out")

    with pytest.raises(JournalRemovedError, match="was removed while the evaluation was writing to it"):
        run(on_progress=remove, settings=[{}])
    assert seen[-1] == after
    assert not (tmp_path / "out").exists()


# --- bad input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixed_precision": "int8"}, "mixed_precision must be one of 'no', 'bf16', 'fp16', got 'int8'"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1"),
        ({"top_k": True}, "top_k must be an integer of at least 1, got True"),
        ({"settings": []}, "settings must hold at least one"),
        ({"resume": True, "overwrite": True}, "resume and overwrite exclude each other"),
        ({"retry_failed": True}, "retry_failed must go with resume"),
        ({"sampling": ClipSampling(16)}, "must have the 8 frames that the model expects, got 16"),
        ({"settings": [{"r": 0}, {"mode": "melt"}]}, "token_merging_mode .* 'melt'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_decoded(
    run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(**changes)
    assert not (tmp_path / "out").exists()


def test_two_evaluations_cannot_share_a_folder(run, tmp_path: Path) -> None:
    def again(_: Progress) -> None:
        with pytest.raises(ValueError, match="is being written to by another evaluation"):
            run(resume=True)

    run(on_progress=again, settings=[{}])
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_random_numbers_and_mode_of_the_caller_are_untouched(run) -> None:
    model = make_model().train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(model=model, settings=[{}])
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    interrupt(run, 4, model=model, settings=[{}], output="interrupted")
    assert model.training


def test_names_of_any_kind_are_kept(run, rows: list[dict[str, Any]]) -> None:
    names = ["a\u2028b", "c\udce9", "d\x85e"]
    changed = [row | {"video_id": name} for row, name in zip(rows, names, strict=False)]
    first = run(dataset=changed, settings=[{}])
    assert list(first.failures) == names[2:]
    assert run(dataset=changed, settings=[{}], resume=True) == first


def test_a_finished_evaluation_keeps_its_timing(run, tmp_path: Path) -> None:
    run(settings=[{}])
    before = (tmp_path / "out" / "timing.json").read_text()
    run(settings=[{}], resume=True)
    assert (tmp_path / "out" / "timing.json").read_text() == before


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_video_that_kills_its_decoder_is_one_that_cannot_be_read(
    run, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    from hf_video_tome.evaluation import decoding

    read_clips = decoding.read_clips

    def crash(source: str, *arguments: Any, **options: Any) -> Any:
        if source == rows[5]["video"]["path"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return read_clips(source, *arguments, **options)

    expected = run("expected")
    monkeypatch.setattr(decoding, "read_clips", crash)
    results = run("crashed", num_workers=num_workers)
    assert set(results.failures) == {*expected.failures, "clip_05"}
    assert results.failures["clip_05"].startswith("its decoder crashed (DataLoader worker (pid")
    assert "\n" not in results.failures["clip_05"]
    assert results.num_labelled == expected.num_labelled - 1


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("31 is not a valid Type\n  in av/sidedata"), "ValueError: 31 is not a valid Type in av/sidedata"),
        (OSError(95, "Operation not supported"), "OSError: [Errno 95] Operation not supported"),
        (KeyError("rotation"), "KeyError: 'rotation'"),
    ],
)
def test_whatever_a_video_raises_is_its_reason_in_one_line(
    run, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, num_workers: int, error: Exception, reason: str
) -> None:
    """Neither the end of the evaluation nor a crash of the process that decodes."""
    from hf_video_tome.evaluation import decoding

    read_clips = decoding.read_clips

    def fail(source: str, *arguments: Any, **options: Any) -> Any:
        if source in (rows[0]["video"]["path"], rows[5]["video"]["path"]):
            raise error
        return read_clips(source, *arguments, **options)

    monkeypatch.setattr(decoding, "read_clips", fail)
    results = run(num_workers=num_workers, settings=[{}])
    assert results.failures["clip_00"] == results.failures["clip_05"] == reason
    assert len(results.failures) == len(UNREADABLE) + 2
    assert all("\n" not in text for text in results.failures.values())


def test_short_videos_can_be_refused(run) -> None:
    results = run(pad=False, sampling=ClipSampling(FRAMES, sampling_rate=3, strategy="center"))
    assert len(results.failures) > len(UNREADABLE)
    assert "has 20 frames, but a clip spans 22" in results.failures["clip_00"]


def test_logits_that_are_not_finite_are_an_error(run) -> None:
    model = make_model()
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(ValueError, match="logits for 'clip_00' are not finite"):
        run(model=model, settings=[{}])


def test_nothing_that_can_be_read_is_a_result(run, tmp_path: Path) -> None:
    results = run(dataset=[{"video": str(tmp_path / "gone.mp4"), "label": 0}])
    assert len(results.failures) == 1
    assert results.num_labelled == 0


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_mixed_precision_runs_the_model_in_it(run, mixed_precision: str) -> None:
    model = make_model()
    dtypes = []
    model.classifier.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    run(model=model, settings=[{}], mixed_precision=mixed_precision)
    assert set(dtypes) == {torch.bfloat16 if mixed_precision == "bf16" else torch.float32}
