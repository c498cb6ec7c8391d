"""Space that classifies a clip with and without token merging, side by side.

    python examples/space/app.py

Works offline, with the bundled checkpoints and clips of Moving Digits rendered at the start.
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
from gradio.utils import get_upload_folder
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_video_tome.benchmark import Ratio, interleave, ratio, stopwatch
from hf_video_tome.benchmark.timing import Timer
from hf_video_tome.checkpoints import DEFAULT_CHECKPOINT, available
from hf_video_tome.configuration import PREFIX
from hf_video_tome.data import ClipSampling, VideoDecodingError, probe_video, read_clips
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.evaluation import predict_labels
from hf_video_tome.loading import CheckpointError, Classifier, load_classifier
from hf_video_tome.merging import MODES
from hf_video_tome.visualization import TracedClip, save_tokens, trace_clip

TITLE = "Video token merging"
INTRODUCTION = """\
# Video token merging
The same checkpoint, twice: as it is, and merging redundant tokens inside the model
([*Video, How Do Your Tokens Merge?*](https://arxiv.org/abs/2506.03885)), without any training."""
ABOUT = """\
The checkpoints that come with the package are tiny and know one thing only: 12 computer-generated motions of
[10 handwritten digits](https://doi.org/10.24432/C50P49). For real videos enter the id of a VideoMAE, ViViT,
TimeSformer or V-JEPA 2 classifier on the Hub, such as `MCG-NJU/videomae-base-finetuned-kinetics`. Motionformer has
none there, and those of VideoPrism are backbones: start this page on a machine of yours, and enter a folder that
`hf-video-tome convert` made of an original Motionformer, or a VideoPrism whose classifier you trained. Larger models
gain more: the tiny ones spend much of their time on overhead that merging does not touch."""
SCHEDULES = ("constant", "decreasing", "increasing")
SAMPLE_CLIPS = (7, 0, 8, 5, 2, 13, 4, 6)  # each another motion
FILM_FPS = 6
SECONDS_OF_TIMING = 4.0
MIN_ROUNDS, MAX_ROUNDS = 3, 15
STEADY = 1.25  # a wider range between quartiles reflects the machine rather than the model
SMALL_WIDTH, SMALL_BATCH = 256, 8  # a clip alone of a tiny model would measure little but overhead
NUM_LABELS = 5  # of each task
MAX_MEGABYTES = 100
MAX_MINUTES = 5
MAX_FPS = 120  # where a file has no times, so many frames are taken for a second
MAX_PIXELS = 4096 * 2304  # of a frame; all frames of a clip are in memory at once
CLEAN_UP = (3600, 6 * 3600)
"""Every so many seconds films and uploads that are so many seconds old are removed; all of them when the page ends."""
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
    """Timing of the model.

    Attributes:
        speed: Speed-up by merging, over all rounds.
        rounds: Number of rounds.
        batch_size: Number of copies of the clip per forward pass.
        without: Median milliseconds per batch without merging.
        merging: Median milliseconds per batch with merging.
    """

    speed: Ratio
    rounds: int
    batch_size: int
    without: float
    merging: float


@dataclass(frozen=True)
class Answer:
    """Prediction for a clip.

    Attributes:
        best: The most likely label, or those of all tasks of a multi-task head.
        probabilities: Probabilities of the most likely labels, by displayed name.
    """

    best: str
    probabilities: dict[str, float]


@lru_cache(maxsize=2)
def load(checkpoint: str) -> Classifier:
    """Loads a checkpoint, unmerged."""
    return load_classifier(checkpoint, r=0)


def is_public() -> bool:
    """Returns whether the page is a Space, whose visitors may not access folders on the server."""
    return "SPACE_ID" in os.environ  # as Hugging Face sets it


def is_hub_id(name: str) -> bool:
    """Returns whether a name can only be a Hub id."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def load_or_explain(checkpoint: object) -> Classifier:
    """Loads a checkpoint; errors are shown on the page."""
    public = is_public()
    name = checkpoint.strip() if isinstance(checkpoint, str) else ""
    if not name or (public and name not in available() and not is_hub_id(name)):
        raise gr.Error(
            f"Checkpoint must be {'' if public else 'a folder, '}a model id on the Hub, or one of: "
            f"{', '.join(available())}, got {checkpoint!r}"
        )
    try:
        return load(name)
    except CheckpointError as error:
        raise gr.Error(f"Checkpoint {error}") from error


def removable(classifier: Classifier) -> tuple[int, int]:
    """Returns the largest useful r, and one that removes four fifths of the tokens."""
    config: Any = classifier.model.config
    scope = config.token_merging_plan().settings.scope
    tokens, protected = config.token_layout.set_size(scope)
    per_layer = (tokens - protected) / config.num_merging_layers
    return max(1, round(1.25 * per_layer)), max(1, round(0.8 * per_layer))


def r_slider(checkpoint: str) -> Any:
    """Returns the slider of r for another checkpoint."""
    highest, usual = removable(load_or_explain(checkpoint))
    return gr.Slider(maximum=highest, value=usual)


def measure(
    prepare: Callable[[float], Callable[[], object]], r: float, batch_size: int, timer: Timer | None = None
) -> Timing:
    """Times the model without and with merging in turn, so that a busy machine slows both equally.

    Args:
        prepare: Function that sets r, untimed, and returns the function to time.
        r: Number of tokens to remove per layer.
        batch_size: Number of clips per pass.
        timer: Timer of one pass; None uses a stopwatch.

    Returns:
        The timing, over as many rounds as fit into `SECONDS_OF_TIMING`.
    """
    runs, timer = [partial(prepare, 0), partial(prepare, r)], timer or stopwatch()
    interleave(runs, 1, timer)  # what happens only once
    seconds_of_round = sum(first for (first,) in interleave(runs, 1, timer))
    rounds = min(max(MIN_ROUNDS, round(SECONDS_OF_TIMING / seconds_of_round)), MAX_ROUNDS)
    without, merging = interleave(runs, rounds, timer)
    milliseconds = [1000 * statistics.median(seconds) for seconds in (without, merging)]
    return Timing(ratio(without, merging), rounds, batch_size, *milliseconds)


def classify(
    video: str | None, checkpoint: str, r: float, mode: str, schedule: str, threshold: float
) -> tuple[str, dict[str, float], dict[str, float], str]:
    """Classifies a clip with and without merging.

    Args:
        video: Path of the video.
        checkpoint: Name, folder or Hub id.
        r: Number of tokens to remove per layer.
        mode: Merging mode.
        schedule: Schedule.
        threshold: Threshold of the mode hybrid.

    Returns:
        The facts as HTML, probabilities of the labels without and with merging, and the path of the film.

    Raises:
        gr.Error: If an input is invalid; shown on the page.
    """
    if not video:
        raise gr.Error("Choose one of the clips, or upload a video.")
    classifier = load_or_explain(checkpoint)
    model: Any = classifier.model
    r = choose_merging(model, r, mode, schedule, threshold)
    try:
        check_size(Path(video))
        frames = read_clips(Path(video), ClipSampling(model.config.clip_shape.frames, strategy="uniform"))[0]
    except VideoDecodingError as error:
        raise gr.Error(f"This video cannot be read: {error}") from error

    pixel_values = classifier.transform(frames)[None]
    batch_size = SMALL_BATCH if model.config.hidden_size < SMALL_WIDTH else 1
    batch = pixel_values.expand(batch_size, *pixel_values.shape[1:]).contiguous()

    def prepare(value: float) -> Callable[[], object]:
        model.set_token_merging(r=value)
        return partial(model, batch)

    def answer(value: float) -> Answer:
        model.set_token_merging(r=value)
        return read_answer(model(pixel_values).logits[0], model.config)

    with torch.inference_mode():
        answers = [answer(0), answer(r)]
    clip = trace_clip(model, frames, classifier.transform, name=Path(classifier.name).name)
    with torch.inference_mode():
        timing = measure(prepare, r, batch_size) if r else None
    model.set_token_merging(r=0)
    measured = facts(clip.trace.token_counts, timing, answers, str(classifier.device))
    return measured, answers[0].probabilities, answers[1].probabilities, save_film(clip)


def check_size(video: Path) -> None:
    """Checks that a video is not too large for the page; Gradio does not check videos given by address.

    Args:
        video: Path of the video.

    Raises:
        gr.Error: If it is too large; shown on the page.
        VideoDecodingError: If it cannot be read.
    """
    megabytes = video.stat().st_size / 2**20 if video.is_file() else 0
    if megabytes > MAX_MEGABYTES:
        raise gr.Error(f"This video is too large: it must have at most {MAX_MEGABYTES} MB, got {megabytes:.0f} MB")
    info = probe_video(video)
    minutes = max(info.duration, info.num_frames / MAX_FPS) / 60
    if minutes > MAX_MINUTES:
        raise gr.Error(
            f"This video is too long: it must have at most {MAX_MINUTES} minutes, got {minutes:.1f} minutes"
        )
    if info.width * info.height > MAX_PIXELS:
        raise gr.Error(
            f"The frames of this video are too large: they must have at most {MAX_PIXELS:,} pixels, got "
            f"{info.width} x {info.height}"
        )


def choose_merging(model: Any, r: float, mode: str, schedule: str, threshold: float) -> float:
    """Sets the token merging settings; errors are shown on the page.

    Returns:
        r, as an integer if it is one.
    """
    r = int(r) if isinstance(r, float) and r.is_integer() else r
    try:
        model.set_token_merging(r=r, mode=mode, schedule=schedule, threshold=threshold)
    except ValueError as error:
        raise gr.Error(str(error).replace(PREFIX, "")) from error
    if not MODES[mode].needs_threshold:
        model.set_token_merging(threshold=None)  # captions would name it
    return r


def read_answer(logits: torch.Tensor, config: Any) -> Answer:
    """Returns the displayed prediction from the logits of a clip."""
    try:
        tasks = predict_labels(logits, config, NUM_LABELS)
    except ValueError as error:
        raise gr.Error(f"This checkpoint gives no answer for the clip: {error}") from error
    shown = {
        (one.label if len(tasks) == 1 else f"{task}: {one.label}"): one.probability
        for task, labels in tasks.items()
        for one in labels
    }
    return Answer(", ".join(labels[0].label for labels in tasks.values()), shown)


def save_film(clip: TracedClip) -> str:
    """Writes the film of the tokens to Gradio's upload folder, from which it is served and cleaned up."""
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:  # so that no half of a film is left
        film = save_tokens(Path(made) / "tokens.mp4", clip, fps=FILM_FPS)
        with tempfile.NamedTemporaryFile(prefix="tokens-", suffix=".mp4", dir=folder, delete=False) as kept:
            kept.write(film.read_bytes())
    return kept.name


def facts(counts: Sequence[int], timing: Timing | None, answers: Sequence[Answer], device: str) -> str:
    """Returns the measured numbers, as HTML."""
    removed = 1 - counts[-1] / counts[0]
    first, second = (answer.best for answer in answers)
    answer = html.escape(first if first == second else f"{first} → {second}")
    if timing is None:
        speed, note = "1.00x", "r = 0 is the stock model"
    else:
        clips = "this clip" if timing.batch_size == 1 else f"a batch of {timing.batch_size}"
        threads = torch.get_num_threads()
        where = f"{threads} CPU thread{'s' if threads > 1 else ''}" if device == "cpu" else device
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


def build(folder: str | os.PathLike[str]) -> gr.Blocks:
    """Builds the page.

    Args:
        folder: Folder for the sample clips, needed while the page is served.

    Returns:
        The page, to be launched.
    """
    clips = write_clips(folder, "test", SAMPLE_CLIPS)
    paths = [str(clip.path) for clip in clips]
    highest, usual = removable(load(DEFAULT_CHECKPOINT))
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CLEAN_UP) as page:
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
                    info="from the package, or an id on the Hub" + ("" if is_public() else ", or a folder"),
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
                    stock = gr.Label(label="Without merging", show_heading=False, elem_id="unmerged")
                    merged = gr.Label(label="With merging", show_heading=False, elem_id="merged")
                film = gr.Video(
                    label="What the model sees, and the tokens that are left",
                    show_label=False,  # it would cover the titles inside the film
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
            "concurrency_limit": 1,  # concurrent timings would disturb each other
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
    options = {"max_file_size": MAX_MEGABYTES * 2**20, "ssr_mode": False, "footer_links": ["api", "gradio"], **options}
    return page.queue().launch(theme=theme, css=CSS, **options)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="moving-digits-") as clips:
        launch(build(clips))
