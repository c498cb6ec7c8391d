"""Clips of commands that choose settings without labels: their options, and what is loaded for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..common import Classifier, Dtype, DtypeOption, check_device, find_checkpoint, load_classifier
from ..evaluation import ClipOptions, DeviceChoice, EvaluationRequest, VideoOptions, WorkersOption, choose_sampling
from ..videos import VideosOption, find_videos, videos_request
from .analyze.inputs import check_one_process, choose_device, decode
from .analyze.options import DatasetOption
from .save import check_folder

if TYPE_CHECKING:
    from ...analysis import Clips
    from ...data.sampling import ClipSampling
    from ...evaluation import Examples

_Options = TypeVar("_Options", VideoOptions, ClipOptions)


@dataclass(frozen=True)
class _Sources:
    videos: VideosOption = None
    dataset: DatasetOption = None


@dataclass(frozen=True)
class SourceOptions(VideoOptions, _Sources):
    """Options for the videos: those of a folder or a dataset."""


@dataclass(frozen=True)
class ClipRunOptions(ClipOptions):
    """Options for sampling clips and running the model on them."""

    workers: WorkersOption = 0
    dtype: DtypeOption = Dtype.float32
    device: DeviceChoice = None


@dataclass(frozen=True)
class UnlabelledClips:
    """A checkpoint, and videos that are still to be decoded.

    Attributes:
        classifier: The model.
        examples: The videos.
        source: Option that names the videos.
        sampling: How frames are sampled.
        request: The request.
    """

    classifier: Classifier
    examples: Examples
    source: str
    sampling: ClipSampling
    request: EvaluationRequest

    def decode(self) -> Clips:
        """Decodes one clip per video, with a progress bar."""
        return decode(self.examples, self.sampling, self.classifier, self.request, self.source)


def find_clips(
    model: str,
    source: SourceOptions,
    run: ClipRunOptions,
    *,
    settings: Mapping[str, Any],
    limit: int,
    batch_size: int,
    seed: int,
    save: Path | None,
    overwrite: bool,
) -> UnlabelledClips:
    """Checks the options, loads the checkpoint and finds the videos.

    Args:
        model: Value of `MODEL`.
        source: Options for the videos.
        run: Options for sampling and running the model.
        settings: Merging settings of the model.
        limit: Number of videos to use.
        batch_size: Number of videos per batch.
        seed: Seed of the sampling.
        save: Value of `--save`.
        overwrite: Value of `--overwrite`.

    Raises:
        InputError: If an option is invalid.
    """
    location = find_checkpoint(model)
    if run.device is not None:
        check_device(run.device)
    check_one_process()
    if save is not None:
        check_folder(save, location, overwrite, "--save")
    data, sampling = _base(VideoOptions, source), _base(ClipOptions, run)
    request = videos_request(
        model, source.videos, source.dataset, data, sampling, batch_size, run.workers, run.dtype, seed
    )
    classifier = load_classifier(model, settings, run.dtype, choose_device(run.device))
    examples, name = find_videos(request, source.videos, limit)
    return UnlabelledClips(classifier, examples, name, choose_sampling(request, request.dataset, classifier), request)


def _base(kind: type[_Options], options: _Options) -> _Options:
    """Returns the options of a class, without those that a subclass adds."""
    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})
