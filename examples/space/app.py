"""A Space: a clip, classified with and without token merging, side by side.

    python examples/space/app.py

Works offline, with the checkpoints that come with the package and clips of Moving Digits that are rendered at the
start.
"""

from __future__ import annotations

import html
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import torch

from hf_video_tome.benchmark import Ratio, interleave, ratio, stopwatch
from hf_video_tome.checkpoints import DEFAULT_CHECKPOINT, available
from hf_video_tome.cli.common import Classifier, InputError, load_classifier
from hf_video_tome.data.decoding import VideoDecodingError, probe_video, read_frames
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.data.sampling import sample_frame_indices
from hf_video_tome.merging import MODES
from hf_video_tome.visualization import save_tokens, trace_clip

TITLE = "Video token merging"
INTRODUCTION = """\
# Video token merging
The same checkpoint, twice: as it is, and merging redundant tokens inside the model
([*Video, How Do Your Tokens Merge?*](https://arxiv.org/abs/2506.03885)), without any training."""
ABOUT = """\
The checkpoints that come with the package are tiny and know one thing only: 12 computer-generated motions of
[10 handwritten digits](https://doi.org/10.24432/C50P49). For real videos enter the id of a VideoMAE, ViViT,
TimeSformer, V-JEPA 2 or VideoPrism classifier on the Hub, such as `MCG-NJU/videomae-base-finetuned-kinetics`. Larger
models gain more: the tiny ones spend much of their time on overhead that merging does not touch."""
SCHEDULES = ("constant", "decreasing", "increasing")
SAMPLE_CLIPS = (7, 0, 8, 5, 2, 13, 4, 6)  # each another motion
FILM_FPS = 6
SECONDS_OF_TIMING = 4.0
MIN_ROUNDS, MAX_ROUNDS = 3, 15
STEADY = 1.25  # quartiles of the ratios that are further apart tell more of the machine than of the model
SMALL_WIDTH, SMALL_BATCH = 256, 8  # a clip alone of a tiny model would measure little but overhead
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.intro h1 { margin-bottom: 0.2em; }
#facts, #facts > * { padding: 0 !important; }
#clips .gallery { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
#clips .gallery span, #clips .gallery .container { display: block; width: 100%; max-width: none; height: auto; }
#clips video { width: 100%; height: auto; max-width: none; aspect-ratio: 1; object-fit: cover; }
.facts { display: grid; grid-template-columns: 4fr 6fr 4fr; gap: 12px; }
.fact { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 12px 16px;
        background: var(--block-background-fill); }
.fact .name { font-size: 0.8rem; color: var(--body-text-color-subdued); }
.fact .value { font-size: 1.45rem; font-weight: 600;
               white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
               line-height: 1.3; color: var(--body-text-color); }
.fact .note { font-size: 0.78rem; color: var(--body-text-color-subdued); line-height: 1.35; }
.layers { display: flex; align-items: flex-end; gap: 5px; height: 92px; margin-top: 14px; }
.layers div { flex: 1; text-align: center; font-size: 0.72rem; color: var(--body-text-color-subdued); }
.layers i { display: block; background: var(--color-accent); border-radius: 3px 3px 0 0; margin-top: 2px; }
.layers-note { font-size: 0.78rem; color: var(--body-text-color-subdued); text-align: center; margin-top: 4px; }
@media (max-width: 700px) { .facts { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True)
class Timing:
    """How long the model took.

    Attributes:
        speed: How many times faster the model is with merging, over all rounds.
        rounds: How often it ran each way.
        batch_size: Copies of the clip that went through the model together.
        without: Median milliseconds of a pass over the batch, without merging.
        merging: The same with merging.
    """

    speed: Ratio
    rounds: int
    batch_size: int
    without: float
    merging: float


@lru_cache(maxsize=2)
def load(checkpoint: str) -> Classifier:
    """Loads a checkpoint, unmerged."""
    return load_classifier(checkpoint, {"r": 0})


def load_or_explain(checkpoint: str) -> Classifier:
    """Loads a checkpoint; what goes wrong is shown on the page."""
    try:
        return load(checkpoint.strip() or DEFAULT_CHECKPOINT)
    except InputError as error:
        raise gr.Error(str(error).replace("MODEL ", "")) from error


def removable(classifier: Classifier) -> tuple[int, int]:
    """The largest r that makes sense, and one that removes four fifths of the tokens."""
    config: Any = classifier.model.config
    scope = config.token_merging_plan().settings.scope
    tokens, protected = config.token_layout.set_size(scope)
    per_layer = (tokens - protected) / config.num_merging_layers
    return max(1, round(1.25 * per_layer)), max(1, round(0.8 * per_layer))


def r_slider(checkpoint: str) -> Any:
    """The slider of r for another checkpoint."""
    highest, usual = removable(load_or_explain(checkpoint))
    return gr.Slider(maximum=highest, value=usual)


def measure(prepare: Callable[[int], Callable[[], object]], r: int, batch_size: int) -> Timing:
    """Times the model without and with merging, in turn, so that a busy machine slows both alike."""
    runs, timer = [partial(prepare, 0), partial(prepare, r)], stopwatch()
    interleave(runs, 1, timer)  # what happens only once
    seconds_of_round = sum(first for (first,) in interleave(runs, 1, timer))
    rounds = min(max(MIN_ROUNDS, round(SECONDS_OF_TIMING / seconds_of_round)), MAX_ROUNDS)
    without, merging = interleave(runs, rounds, timer)
    milliseconds = [1000 * statistics.median(seconds) for seconds in (without, merging)]
    return Timing(ratio(without, merging), rounds, batch_size, *milliseconds)


def classify(
    video: str | None, checkpoint: str, r: float, mode: str, schedule: str, threshold: float
) -> tuple[str, dict[str, float], dict[str, float], str]:
    """Classifies a clip both ways.

    Args:
        video: Path of the video.
        checkpoint: Name, folder or Hub id.
        r: Tokens that each layer removes.
        mode: Merging mode.
        schedule: Schedule.
        threshold: For the mode hybrid.

    Returns:
        The facts as HTML, probabilities of the labels without and with merging, and the path of the film.
    """
    if not video:
        raise gr.Error("Choose one of the clips, or upload a video.")
    classifier = load_or_explain(checkpoint)
    model: Any = classifier.model
    try:
        indices = sample_frame_indices(
            probe_video(Path(video)).num_frames, model.config.num_frames, strategy="uniform"
        )
        frames = read_frames(Path(video), indices, pad=True)
    except VideoDecodingError as error:
        raise gr.Error(f"This video cannot be read: {error}") from error
    settings = {"mode": mode, "schedule": schedule, "threshold": threshold if MODES[mode].needs_threshold else None}
    try:
        model.set_token_merging(**settings, r=int(r))
    except ValueError as error:
        raise gr.Error(str(error)) from error

    pixel_values = classifier.transform(frames)[None]
    batch_size = SMALL_BATCH if model.config.hidden_size < SMALL_WIDTH else 1
    batch = pixel_values.expand(batch_size, *pixel_values.shape[1:]).contiguous()

    def prepare(value: int) -> Callable[[], object]:
        model.set_token_merging(r=value)
        return partial(model, batch)

    def answer(value: int) -> dict[str, float]:
        model.set_token_merging(r=value)
        return _probabilities(model, model(pixel_values).logits[0])

    clip = trace_clip(model, frames, classifier.transform, name=Path(classifier.name).name)
    film = save_tokens(Path(tempfile.mkdtemp(prefix="token-merging-")) / "tokens.mp4", clip, fps=FILM_FPS)
    with torch.inference_mode():
        answers = [answer(0), answer(int(r))]
        timing = measure(prepare, int(r), batch_size) if int(r) else None
    model.set_token_merging(r=0)
    return facts(clip.trace.token_counts, timing, answers, str(classifier.device)), answers[0], answers[1], str(film)


def _probabilities(model: Any, logits: torch.Tensor) -> dict[str, float]:
    best = logits.float().softmax(-1).topk(min(5, len(logits)))
    names = [str(model.config.id2label[index]) for index in best.indices.tolist()]
    return dict(zip(names, best.values.tolist(), strict=True))


def facts(counts: Sequence[int], timing: Timing | None, answers: list[dict[str, float]], device: str) -> str:
    """The measured numbers, as HTML."""
    removed = 1 - counts[-1] / counts[0]
    first, second = (next(iter(answer)) for answer in answers)
    answer = html.escape(first if first == second else f"{first} → {second}")
    if timing is None:
        speed, note = "1.00x", "r = 0 is the stock model"
    else:
        clips = "this clip" if timing.batch_size == 1 else f"a batch of {timing.batch_size}"
        where = f"{torch.get_num_threads()} CPU threads" if device == "cpu" else device
        median, low, high = timing.speed
        speed = f"{median:.2f}x"
        note = (
            f"{timing.without:.0f} → {timing.merging:.0f} ms for {clips} on {where}; {low:.2f}x to {high:.2f}x in the "
            f"middle half of {timing.rounds} rounds in turn"
            + (": rough, as this machine is busy just now" if high > STEADY * low else "")
        )
    cards = [
        ("Tokens left", f"{counts[0]} → {counts[-1]}", f"{removed:.0%} removed"),
        ("Speed", speed, note),
        ("Answer", answer, "the same with and without merging" if first == second else "merging changed the answer"),
    ]
    grid = "".join(
        f'<div class="fact"><div class="name">{name}</div><div class="value">{value}</div>'
        f'<div class="note">{note}</div></div>'
        for name, value, note in cards
    )
    bars = "".join(f'<div>{count}<i style="height:{round(70 * count / counts[0])}px"></i></div>' for count in counts)
    return (
        f'<div class="facts">{grid}</div><div class="layers">{bars}</div>'
        '<div class="layers-note">tokens before the first layer, and after each layer</div>'
    )


def build(folder: str | os.PathLike[str] | None = None) -> gr.Blocks:
    """Builds the page.

    Args:
        folder: Where the sample clips go; a new temporary folder if None.

    Returns:
        The page, to be launched.
    """
    clips = write_clips(folder or tempfile.mkdtemp(prefix="moving-digits-"), "test", SAMPLE_CLIPS)
    paths = [str(clip.path) for clip in clips]
    highest, usual = removable(load(DEFAULT_CHECKPOINT))
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION, elem_classes="intro")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                video = gr.Video(paths[0], label="Clip", sources=["upload"], height=230, loop=True, elem_id="clip")
                gr.Examples(
                    [[path] for path in paths], inputs=[video], label="Clips of Moving Digits", elem_id="clips"
                )
                checkpoint = gr.Dropdown(
                    available(),
                    value=DEFAULT_CHECKPOINT,
                    allow_custom_value=True,
                    label="Checkpoint",
                    info="one that comes with the package, or an id on the Hub",
                    elem_id="checkpoint",
                )
                r = gr.Slider(0, highest, usual, step=1, label="r: tokens that each layer removes", elem_id="r")
                with gr.Row():
                    mode = gr.Dropdown(list(MODES), value="merge", label="Mode", min_width=120, elem_id="mode")
                    schedule = gr.Dropdown(
                        list(SCHEDULES), value="constant", label="Schedule", min_width=120, elem_id="schedule"
                    )
                threshold = gr.Slider(
                    -1,
                    1,
                    0.8,
                    step=0.05,
                    visible=False,
                    label="Threshold: cosine under which tokens are dropped",
                    elem_id="threshold",
                )
                button = gr.Button("Classify", variant="primary", elem_id="classify")
            with gr.Column(scale=7, min_width=420):
                measured = gr.HTML(elem_id="facts")
                with gr.Row():
                    stock = gr.Label(
                        label="Without merging", num_top_classes=5, show_heading=False, elem_id="unmerged"
                    )
                    merged = gr.Label(label="With merging", num_top_classes=5, show_heading=False, elem_id="merged")
                film = gr.Video(
                    label="What the model sees, and the tokens that are left",
                    show_label=False,  # it would lie on the titles inside the film
                    autoplay=True,
                    loop=True,
                    interactive=False,
                    height=400,
                    elem_id="film",
                )
        gr.Markdown(ABOUT)

        inputs, outputs = [video, checkpoint, r, mode, schedule, threshold], [measured, stock, merged, film]
        arguments: dict[str, Any] = {
            "fn": classify,
            "inputs": inputs,
            "outputs": outputs,
            "concurrency_limit": 1,  # of timings that run beside each other none is right
            "concurrency_id": "model",
        }
        button.click(**arguments, api_name="classify")
        page.load(**arguments, api_visibility="private")
        checkpoint.change(
            r_slider, checkpoint, r, concurrency_limit=1, concurrency_id="model", api_visibility="private"
        )
        mode.change(
            lambda chosen: gr.Slider(visible=MODES[chosen].needs_threshold), mode, threshold, api_visibility="private"
        )
    return page


def launch(page: gr.Blocks, **options: Any) -> Any:
    """Serves the page, without anything from other servers."""
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="lg")
    return page.queue().launch(theme=theme, css=CSS, ssr_mode=False, footer_links=["api", "gradio"], **options)


if __name__ == "__main__":
    launch(build())
