"""Search for the settings that change predictions least at a given speed, on clips without labels."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from .._compat import is_compiled, is_compiled_name
from ..analysis.clips import merging
from ..analysis.speed import measure_speed_ups
from ..evaluation.runner import digest_weights
from ..merging.setting_error import SettingError
from ..merging.values import is_between, shown
from ..models.encoder import Encoder
from ..models.find_model import find_merging_model
from ..models.fit_operations import FittedSettings
from ..models.scoped_settings import REFUSAL
from ..version import __version__
from .memo import Memo
from .outcomes import HELD_BACK, SEARCH, ClipOutcomes, RefusedError, difference, digest_clips, split
from .recommendation import (
    ENOUGH_TO_COMPARE,
    SPEED_TOLERANCE,
    recommend_closest,
    recommend_fastest,
    searched_divergence,
)
from .result import Comparison, Finalist, Trial, TuningResult
from .search_space import SearchSpace, Shape, search_space, settings_key, simple_shapes

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform

RUNGS = (8, 24, 48)
"""Numbers of clips on which trials are compared, before those that are left are compared on all."""
KEPT_SHARE, KEPT_LAST, FINALISTS = 4, 4, 2
"""One in so many trials is kept after the first rung, so many trials after the second, and so many in the end."""
MEASUREMENTS = 4
"""Largest number of measurements until shapes have the speed-up."""
STEP = 1.1
"""Ratio of successive reduction factors that are tried for an agreement."""
MAX_FACTOR = 12.0
"""Largest reduction factor that is tried for an agreement."""
FRONTIER_STEP = 1.35
"""Ratio of the reduction factors of neighbouring points of the frontier."""
ENOUGH_CLIPS = 300
"""Number of clips from which on the standard error of an agreement is below 1 point."""
LEAST_CLIPS = 4


class Progress(NamedTuple):
    """Progress of a search.

    Attributes:
        phase: What is being done.
        done: Number of finished steps of the phase.
        total: Number of its steps.
    """

    phase: str
    done: int
    total: int


class _Fitted(NamedTuple):
    """Shape fitted to the goal."""

    name: str
    shape: Shape
    settings: dict[str, Any]
    operations: float


def tune(
    model: Any,
    clips: Tensor | Iterable[Tensor],
    *,
    speedup: float | None = None,
    operations: float | None = None,
    agreement: float | None = None,
    settings: Mapping[str, Any] | None = None,
    transform: ClipTransform | None = None,
    holdout: float = 0.5,
    trials: int = 40,
    minutes: float = 8.0,
    batch_size: int = 8,
    rounds: int = 5,
    speed_batch_size: int | None = None,
    seed: int = 0,
    journal: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TuningResult:
    """Finds the settings that change the predictions of a model least at a given speed, on clips without labels.

    Input stage, mode and its options, schedule and proportional attention are searched with Optuna; the amount of
    removal always follows from the goal. Constant r, decreasing r and the presets are tried first. Trials are compared
    by their mean KL divergence from the predictions at r = 0 on 8 clips, the better ones on 24, and the best on 48 and
    all others. Clips that are held back never take part: on them, the best is compared with the simple settings, which
    are recommended unless it is better beyond noise.

    Args:
        model: A classifier that can merge tokens, or a wrapper around one (peft, DDP). Its settings and training mode
            are restored.
        clips: (n, T, C, H, W), or (T, C, H, W) clips one by one, kept in memory: float as the model takes them, or
            uint8 with `transform`.
        speedup: Speed-up over the unmerged model, as measured on this machine.
        operations: Reduction factor of multiply-accumulates, in place of a speed-up: the result then does not depend
            on the machine.
        agreement: Share of the held-back clips that keep their most likely class, 0 to 1, in place of a speed-up: the
            fastest settings that reach it.
        settings: Settings that all trials share, such as the scope.
        transform: Transform that normalises the clips.
        holdout: Share of the clips that are held back.
        trials: Number of settings to try, apart from the simple ones.
        minutes: Time limit; the search ends earlier to be done by then. It does not count the first passes, and is
            missed if the clips are too many.
        batch_size: Number of clips per batch.
        rounds: Number of timed passes per setting. With `operations`, 0 measures no speed.
        speed_batch_size: Number of clips per timed pass; 1 on the CPU and `batch_size` on others when None.
        seed: Seed of the search.
        journal: File in which results are kept; an interrupted search continues from there to the same result.
        on_progress: Called after each step.

    Returns:
        The recommended settings, and what they were compared with.

    Raises:
        ImportError: If Optuna is not installed.
        ValueError: If an argument is out of range, the model is no classifier or cannot run the clips, the goal is out
            of reach, or the journal belongs to another search.
        RuntimeError: If the model is compiled.

    Examples:
        >>> import torch
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification, tune
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=64, num_hidden_layers=3,
        ...                         num_attention_heads=4, intermediate_size=256)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> result = tune(model, torch.randn(8, 4, 3, 32, 32), operations=1.4, trials=2, rounds=0)
        >>> model.set_token_merging(**result.settings)
        >>> result.recommended.operations >= 1.4
        True
    """
    goal = _check_goal(speedup=speedup, operations=operations, agreement=agreement)
    _check_between("holdout", holdout, 0, 1)
    for name, value, least in (
        ("trials", trials, 0),
        ("batch_size", batch_size, 1),
        ("rounds", rounds, 0 if operations is not None else 1),
        ("speed_batch_size", 1 if speed_batch_size is None else speed_batch_size, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an int >= {least}, got {shown(value)}")
    if not is_between(minutes, 0, math.inf):
        raise ValueError(f"minutes must be a number >= 0, got {shown(minutes)}")
    _require_optuna()
    model = _find_classifier(model)
    clips = _list_clips(clips, model, transform)
    parts = split(len(clips), holdout, seed)
    for part in parts:
        if len(parts[part]) < 2:
            raise ValueError(
                f"holdout must leave at least 2 clips to search on and 2 to hold back, got {holdout:g} of {len(clips)}"
            )
    device = next(model.parameters()).device
    size = speed_batch_size or (1 if device.type == "cpu" else batch_size)
    shared = dict(settings or {})
    conditions: dict[str, Any] = {
        "goal": {goal.name: goal.value},
        "settings": shared,
        "num_clips": len(clips),
        "holdout": holdout,
        "trials": trials,
        "minutes": minutes,
        "batch_size": batch_size,
        "rounds": rounds,
        "speed_batch_size": size,
        "seed": seed,
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device.type,
    }
    identity = {
        **conditions,
        "weights": digest_weights(model),
        "clips": digest_clips(clips),
        "version": __version__,
    }
    memo = Memo(journal, identity)
    was_training = model.training
    model.eval()
    try:
        with merging(model, {}):
            space = search_space(model.config, shared)
            search = _Search(model, clips, parts, space, memo, conditions, goal, transform, on_progress)
            return search.run()
    finally:
        model.train(was_training)


class _Goal(NamedTuple):
    name: str
    value: float


def _check_goal(**goals: float | None) -> _Goal:
    given = [_Goal(name, value) for name, value in goals.items() if value is not None]
    if len(given) != 1:
        names = ", ".join(goals)
        got = " and ".join(goal.name for goal in given) or "none"
        raise ValueError(f"one of {names} must be given, got {got}")
    [goal] = given
    if goal.name == "agreement":
        _check_between("agreement", goal.value, 0, 1)
    elif not is_between(goal.value, 1, math.inf) or goal.value in (1, math.inf):
        raise ValueError(f"{goal.name} must be a number above 1, got {shown(goal.value)}")
    return goal


def _check_between(name: str, value: Any, low: float, high: float) -> None:
    if not is_between(value, low, high) or value in (low, high):
        raise ValueError(f"{name} must be a number between {low:g} and {high:g}, both excluded, got {shown(value)}")


def _require_optuna() -> None:
    try:
        import optuna
    except ImportError as error:
        raise ImportError('tune needs Optuna: pip install "hf-video-tome[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _find_classifier(model: Any) -> Any:
    """Returns the classifier in a module; refuses compiled ones, whose speed would be measured without compilation."""
    found = find_merging_model(model)
    if is_compiled(found.model) or any(is_compiled_name(name) for name, _ in model.named_modules()):
        raise RuntimeError(REFUSAL)
    if isinstance(found.entry, Encoder):
        raise ValueError(f"model must be a classifier, got the base model {type(found.model).__name__}")
    return found.model


def _list_clips(clips: Any, model: Any, transform: ClipTransform | None) -> list[Tensor]:
    """Returns the clips as a list, checked against the model."""
    found = list(clips) if isinstance(clips, Iterable) else []
    for number, clip in enumerate(found):
        if not isinstance(clip, Tensor) or clip.ndim != 4 or clip.shape != found[0].shape:
            got = f"{tuple(clip.shape)}" if isinstance(clip, Tensor) else type(clip).__name__
            raise ValueError(f"clips must be (T, C, H, W) tensors of one shape, got {got} for clip {number}")
        if not clip.is_floating_point() and transform is None:
            raise ValueError(f"clips must be float without a transform, got {clip.dtype} for clip {number}")
    if len(found) < LEAST_CLIPS:
        raise ValueError(f"clips must be at least {LEAST_CLIPS}, got {len(found)}")
    return found


class _Search:
    """One search, see `tune`."""

    def __init__(
        self,
        model: Any,
        clips: Sequence[Tensor],
        parts: Mapping[str, Sequence[int]],
        space: SearchSpace,
        memo: Memo,
        conditions: Mapping[str, Any],
        goal: _Goal,
        transform: ClipTransform | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._model, self._config, self._space, self._memo = model, model.config, space, memo
        self._conditions, self._goal = conditions, goal
        self._num_search, self._num_held_back = len(parts[SEARCH]), len(parts[HELD_BACK])
        self._rungs = [*(rung for rung in RUNGS if rung < self._num_search), self._num_search]
        ends = {SEARCH: self._rungs, HELD_BACK: [self._num_held_back]}
        self._on_progress, self._step = on_progress, Progress("", 0, 0)
        self._clips = ClipOutcomes(model, clips, parts, ends, memo, conditions["batch_size"], transform, self._advance)
        self._simple = simple_shapes(self._config, space)
        self._trials: dict[str, tuple[Shape, Trial]] = {}
        self._notes: list[str] = []
        self._num_measurements = 0
        self._fit_seconds: dict[str, float] = {}

    # --- progress and time
    def _begin(self, phase: str, total: int) -> None:
        self._step = Progress(phase, 0, total)
        self._on_progress(self._step)

    def _advance(self) -> None:
        if self._step.done < self._step.total:
            self._step = self._step._replace(done=self._step.done + 1)
            self._on_progress(self._step)

    def _has_time(self, what: str, seconds: float) -> bool:
        """Returns whether something that takes a while can still be done; a repeated search decides the same."""
        limit = 60 * float(self._conditions["minutes"])
        return bool(self._memo.get(f"time {what}", lambda: self._memo.elapsed + seconds <= limit))

    def _seconds_left_over(self) -> float:
        """Estimates the seconds from the end of the trials to the end of the search."""
        tried = [trial.settings for _, trial in self._trials.values() if trial.outcomes is not None]
        per_clip = [self._clips.seconds_per_clip(settings, SEARCH) for settings in tried]
        own = sum(per_clip) / max(len(per_clip), 1)
        unmerged = self._clips.seconds_per_clip(self._config.unmerged_settings, SEARCH)
        finalists = FINALISTS + len(self._simple)
        passes = len(tried) / KEPT_SHARE * self._rungs[min(1, len(self._rungs) - 1)]
        passes += (KEPT_LAST + finalists) * self._num_search + (finalists + 4) * self._num_held_back
        measurements = {"operations": 2, "agreement": 2, "speedup": 2 + MEASUREMENTS}[self._goal.name]
        if self._goal.name == "agreement":
            passes += finalists * len(_ladder()).bit_length() * self._num_search
        timed = measurements * (self._conditions["rounds"] + 1) * self._conditions["speed_batch_size"]
        fits = (measurements * finalists + 4) * sum(self._fit_seconds.values()) / max(len(self._fit_seconds), 1)
        return passes * own + timed * (unmerged + finalists * own) + fits

    # --- the search
    def run(self) -> TuningResult:
        """Runs the search."""
        total = sum(self._clips.num_batches(part) for part in (SEARCH, HELD_BACK))
        self._begin("predicting without merging", total)
        for part in (SEARCH, HELD_BACK):
            self._clips.unmerged(part)
        factor = self._factor_of_search()
        self._search(factor)
        self._note_refused()
        chosen = self._promote()
        finalists = self._fit_to_goal(chosen, factor)
        if self._goal.name == "agreement":
            return self._recommend_fastest(finalists)
        return self._recommend_closest(finalists)

    def _factor_of_search(self) -> float:
        """Returns the reduction factor of operations of all trials."""
        if self._goal.name == "operations":
            return self._goal.value
        if self._goal.name == "speedup":
            simple = [(name, shape, self._goal.value) for name, shape in self._simple.items()]
            fitted = self._fit_to_speed(simple, "measuring simple settings")
            return math.exp(sum(math.log(it.operations) for it in fitted) / len(fitted))
        self._begin("looking for the amount", len(self._simple) * self._num_steps(SEARCH))
        return max(self._factor_of_agreement(shape) for shape in self._simple.values())

    def _num_steps(self, part: str) -> int:
        return math.ceil(math.log2(len(_ladder()))) * self._clips.num_batches(part)

    def _fit(self, shape: Shape, factor: float) -> FittedSettings:
        """Fits a shape to a reduction factor of operations.

        Raises:
            RefusedError: If the model does not support the shape.
        """

        def compute() -> Any:
            try:
                return shape.fit(self._config, factor)
            except SettingError as error:
                return {"refused": str(error)}

        text = json.dumps(dict(shape.settings), sort_keys=True)
        key = f"fit {factor:.6g}, {shape.input_share:g}: {text}"
        found = self._memo.get(key, compute)
        self._fit_seconds[key] = self._memo.seconds_of(key)
        if isinstance(found, dict):
            raise RefusedError(found["refused"])
        return FittedSettings(*found)

    def _try(self, name: str, shape: Shape, factor: float) -> Trial:
        """Tries a shape on the clips of the first rung."""
        try:
            fitted = self._fit(shape, factor)
        except RefusedError as error:
            return Trial(name, shape.settings, None, None, str(error))
        if fitted.factor < factor * (1 - 1e-9):
            refused = f"reduces operations by {fitted.factor:.2f} at most"
            return Trial(name, fitted.settings, fitted.factor, None, refused)
        try:
            outcomes = self._clips.of(fitted.settings, SEARCH, self._rungs[0])
        except RefusedError as error:
            return Trial(name, fitted.settings, fitted.factor, None, str(error))
        return Trial(name, fitted.settings, fitted.factor, outcomes)

    def _search(self, factor: float) -> None:
        """Tries the simple shapes, and then those that Optuna suggests."""
        import optuna

        wanted = self._conditions["trials"]
        self._begin("searching", (wanted + len(self._simple)) * self._clips.num_batches(SEARCH, self._rungs[0]))
        for name, shape in self._simple.items():
            self._trials[name] = shape, self._try(name, shape, factor)
        known = {
            settings_key(self._config, trial.settings): trial
            for _, trial in self._trials.values()
            if trial.outcomes is not None
        }
        if not known:
            reasons = "; ".join(f"{name} {trial.refused}" for name, (_, trial) in self._trials.items())
            raise ValueError(f"{self._goal.name} must be within reach, got {self._goal.value:g} ({reasons})")
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self._conditions["seed"]))
        for shape in self._simple.values():
            study.enqueue_trial(self._space.parameters_of(shape))
        for _ in range(4 * wanted + len(self._simple)):  # suggestions may repeat, or be out of reach
            tried = len(self._trials) - len(self._simple)
            if tried == wanted:
                break
            if not self._has_time(f"for trial {tried}", self._seconds_left_over()):
                self._notes.append(
                    f"The search ended after {tried} of {wanted} trials because of its time limit of "
                    f"{self._conditions['minutes']:g} minutes."
                )
                break
            asked = study.ask()
            shape = self._space.suggest(asked)
            trial = self._try(f"trial {tried}", shape, factor)
            if trial.outcomes is None:
                study.tell(asked, state=optuna.trial.TrialState.PRUNED)
                continue
            study.tell(asked, trial.outcomes.mean_divergence)
            key = settings_key(self._config, trial.settings)
            if key not in known:
                known[key] = trial
                self._trials[trial.name] = shape, trial

    def _promote(self) -> list[tuple[str, Shape, Trial]]:
        """Compares the better trials on more clips, and returns the best few and all simple ones."""
        left = [trial for _, trial in self._trials.values() if trial.outcomes is not None]
        for rung, stop in enumerate(self._rungs[1:], 1):
            left.sort(key=_divergence)
            kept = max(math.ceil(len(left) / KEPT_SHARE), KEPT_LAST) if rung == 1 else KEPT_LAST
            better = {trial.name for trial in left[:kept]}
            left = [trial for trial in left if trial.name in better or trial.name in self._simple]
            self._begin(f"comparing {len(left)} on {stop} clips", len(left) * self._clips.num_batches(SEARCH, stop))
            left = [self._on_more_clips(trial, stop) for trial in left]
        left.sort(key=_divergence)
        best = [trial for trial in left if trial.name not in self._simple][:FINALISTS]
        best += [trial for trial in left if trial.name in self._simple]
        return [(trial.name, self._trials[trial.name][0], trial) for trial in best]

    def _on_more_clips(self, trial: Trial, stop: int) -> Trial:
        try:
            outcomes = self._clips.of(trial.settings, SEARCH, stop)
        except RefusedError:
            return trial
        shape, _ = self._trials[trial.name]
        found = Trial(trial.name, trial.settings, trial.operations, outcomes)
        self._trials[trial.name] = shape, found
        return found

    # --- the goal
    def _fit_to_goal(self, chosen: Sequence[tuple[str, Shape, Trial]], factor: float) -> list[_Fitted]:
        if self._goal.name == "operations":
            return [
                _Fitted(name, shape, dict(trial.settings), trial.operations)
                for name, shape, trial in chosen
                if trial.operations is not None
            ]
        if self._goal.name == "speedup":
            shapes = [(name, shape, factor) for name, shape, _ in chosen]
            fitted = self._fit_to_speed(shapes, "measuring finalists", note_missed=True)
            reached = {it.name for it in fitted}
            for name, _, _ in chosen:
                if name not in reached:
                    self._notes.append(
                        f"Left out: {name} (its measured speed-up is not within {SPEED_TOLERANCE:.0%} of the goal)."
                    )
            return fitted
        self._begin("looking for the amounts", len(chosen) * self._num_steps(SEARCH))
        found = []
        for name, shape, _ in chosen:
            confirmed = self._step_down(name, shape, self._factor_of_agreement(shape))
            found += [] if confirmed is None else [confirmed]
        return found

    def _speeds(self, settings: Sequence[Mapping[str, Any]]) -> list[float]:
        """Measures speed-ups, all in turn; repeated measurements of the same settings are not shared."""
        rounds, size = self._conditions["rounds"], self._conditions["speed_batch_size"]
        number = self._num_measurements
        self._num_measurements += 1
        keys = [settings_key(self._config, it) for it in settings]
        return list(
            self._memo.get(
                f"speed {number}: {json.dumps(keys)}",
                lambda: measure_speed_ups(
                    self._model,
                    settings,
                    batch_size=size,
                    rounds=rounds,
                    seed=self._conditions["seed"],
                    on_progress=self._advance,
                ),
            )
        )

    def _fit_to_speed(
        self, shapes: Sequence[tuple[str, Shape, float]], phase: str, *, note_missed: bool = False
    ) -> list[_Fitted]:
        """Fits shapes to the speed-up, starting from reduction factors; leaves out those that do not reach it.

        If none does, the closest of each shape are left, and `note_missed` says whether to note it.
        """
        target = self._goal.value
        measured: dict[str, list[tuple[float, _Fitted]]] = {name: [] for name, _, _ in shapes}
        left = list(shapes)
        for _ in range(MEASUREMENTS):
            self._begin(phase, (len(left) + 1) * self._conditions["rounds"])
            fitted = []
            for name, shape, factor in left:
                try:
                    found = self._fit(shape, factor)
                except RefusedError:
                    continue
                fitted.append(_Fitted(name, shape, found.settings, found.factor))
            for it, speed in zip(fitted, self._speeds([it.settings for it in fitted]), strict=True):
                measured[it.name].append((speed, it))
            left = []
            for name, shape, _ in shapes:
                points = [(speed, it.operations) for speed, it in measured[name]]
                if points and not any(_equal_speeds(speed, target) for speed, _ in points):
                    factor = _next_factor(points, target)
                    if all(abs(math.log(factor / known)) > 1e-3 for _, known in points):
                        left.append((name, shape, factor))
            if not left:
                break
        if not any(measured.values()):
            raise ValueError(f"speedup needs settings that this model supports, got {target:g}")
        fastest, fastest_name = max(
            (max(speed for speed, _ in points), name) for name, points in measured.items() if points
        )
        if fastest < target and not _equal_speeds(fastest, target):
            size = self._conditions["speed_batch_size"]
            raise ValueError(
                f"speedup must be within reach of this model on this machine, got {target:g}: {fastest_name} reached "
                f"{fastest:.2f} at most, with {size} {'clip' if size == 1 else 'clips'} per pass; small models gain "
                "more with a larger speed_batch_size"
            )
        closest = [min(points, key=lambda it: abs(math.log(it[0] / target))) for points in measured.values() if points]
        equal = [it for speed, it in closest if _equal_speeds(speed, target)]
        # On a busy machine, measurements may jump across the target: what was measured on both sides can reach it.
        both = [it for _, it in closest if len({speed < target for speed, _ in measured[it.name]}) == 2]
        if not equal and not both and note_missed:
            speeds = ", ".join(f"{it.name} {speed:.2f}" for speed, it in closest)
            self._notes.append(
                f"No settings reach a speed-up of {target:g} within {SPEED_TOLERANCE:.0%}: those compared have "
                f"other speeds ({speeds}), so that slower ones may only seem better."
            )
        return equal or both or [it for _, it in closest]

    def _agrees(self, shape: Shape, factor: float, part: str) -> bool:
        try:
            fitted = self._fit(shape, factor)
            if fitted.factor < factor * (1 - 1e-9):
                return False
            return self._clips.of(fitted.settings, part).agreement >= self._goal.value
        except RefusedError:
            return False

    def _factor_of_agreement(self, shape: Shape) -> float:
        """Returns the largest reduction factor with the agreement on the clips of the search, by bisection."""
        ladder = _ladder()
        low, high = 0, len(ladder) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._agrees(shape, ladder[middle], SEARCH) else (low, middle - 1)
        return ladder[low]

    def _step_down(self, name: str, shape: Shape, factor: float) -> _Fitted | None:
        """Returns the settings with the largest reduction factor whose agreement the held-back clips confirm."""
        for smaller in reversed([it for it in _ladder() if it <= factor]):
            if self._agrees(shape, smaller, HELD_BACK):
                found = self._fit(shape, smaller)
                return _Fitted(name, shape, found.settings, found.factor)
        return None

    # --- the recommendation
    def _finalists(self, fitted: Sequence[_Fitted], on_search: bool) -> list[Finalist]:
        """Runs settings on the clips that were held back, and measures their speed."""
        parts = [SEARCH, HELD_BACK] if on_search else [HELD_BACK]
        total = len(fitted) * sum(map(self._clips.num_batches, parts))
        self._begin("comparing on the clips held back" if on_search else "drawing the frontier", total)
        found = []
        for it in fitted:
            try:
                searched = self._clips.of(it.settings, SEARCH) if on_search else None
                held_back = self._clips.of(it.settings, HELD_BACK)
            except RefusedError as error:
                self._notes.append(f"{it.name}: {error}.")
                continue
            simple = it.name in self._simple
            found.append(Finalist(it.name, it.settings, it.operations, None, searched, held_back, simple))
        return found

    def _with_speeds(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        if not self._conditions["rounds"] or not finalists:
            return list(finalists)
        self._begin("measuring speed", (len(finalists) + 1) * self._conditions["rounds"])
        speeds = self._speeds([it.settings for it in finalists])
        return [Finalist(**{**vars(it), "speedup": speed}) for it, speed in zip(finalists, speeds, strict=True)]

    def _recommend_closest(self, fitted: Sequence[_Fitted]) -> TuningResult:
        """Recommends the settings that change predictions least, at the same speed."""
        self._note_few_clips()
        finalists = self._with_speeds(self._finalists(fitted, on_search=True))
        if self._goal.name == "speedup":
            self._note_unequal_speeds(finalists)
        finalists.sort(key=searched_divergence)
        return self._result(*recommend_closest(finalists), finalists, fitted)

    def _recommend_fastest(self, fitted: Sequence[_Fitted]) -> TuningResult:
        """Recommends the fastest settings, of those that agree on the held-back clips."""
        if self._num_held_back < ENOUGH_CLIPS:
            share = self._goal.value
            error = 100 * math.sqrt(share * (1 - share) / self._num_held_back)
            self._notes.append(
                f"The agreement is that of {self._num_held_back} held-back clips, with a standard error of about "
                f"{error:.1f} points: give more clips, so that at least {ENOUGH_CLIPS} are held back."
            )
        finalists = self._with_speeds(self._finalists(fitted, on_search=True))
        finalists.sort(key=lambda it: -it.speed)
        if not finalists:
            self._notes.append(f"No settings reach an agreement of {self._goal.value:g} on the held-back clips.")
            return self._result(None, None, [], [])
        return self._result(*recommend_fastest(finalists), finalists, fitted)

    def _note_few_clips(self) -> None:
        if self._num_held_back < ENOUGH_TO_COMPARE:
            needed = math.ceil(ENOUGH_TO_COMPARE / self._conditions["holdout"])
            self._notes.append(
                f"Only {self._num_held_back} clips were held back, too few to tell settings apart: give at least "
                f"{needed} clips, so that {ENOUGH_TO_COMPARE} are held back."
            )

    def _note_unequal_speeds(self, finalists: Sequence[Finalist]) -> None:
        off = [f"{it.name} {it.speed:.2f}" for it in finalists if not _equal_speeds(it.speed, self._goal.value)]
        if off:
            self._notes.append(
                f"Measured again, not all are {self._goal.value:g} times as fast within {SPEED_TOLERANCE:.0%}: "
                f"{', '.join(off)}. If the machine was busy, repeat the search on an idle one, or with more rounds."
            )

    def _note_refused(self) -> None:
        """Says which simple settings are missing from the comparison, and why."""
        reasons: dict[str, list[str]] = {}
        for name, (_, trial) in self._trials.items():
            if name in self._simple and trial.refused is not None:
                reasons.setdefault(trial.refused, []).append(name)
        self._notes.extend(f"Left out: {' and '.join(names)} ({reason})." for reason, names in reasons.items())

    def _result(
        self,
        recommended: Finalist | None,
        best: Finalist | None,
        finalists: Sequence[Finalist],
        fitted: Sequence[_Fitted],
    ) -> TuningResult:
        compared = best if recommended is None or recommended.is_simple else recommended
        comparison = [
            Comparison(compared.name, it.name, *difference(compared.held_back, it.held_back))
            for it in finalists
            if compared is not None and it.is_simple and it is not compared
        ]
        if recommended is not None and recommended.is_simple:
            better = "clearly faster than" if self._goal.name == "agreement" else "better beyond noise than"
            self._notes.append(
                f"Nothing was gained: no settings that the search found are {better} {recommended.name}."
            )
        if recommended is not None and recommended.speedup is not None and recommended.speedup < 1:
            self._notes.append(
                f"Measured on this machine, {recommended.name} is slower than the unmerged model "
                f"({recommended.speedup:.2f} times its speed): merging does not pay for itself here; search with a "
                "speed-up as the goal, or for other hardware."
            )
        settings = self._config.unmerged_settings if recommended is None else recommended.settings
        return TuningResult(
            settings={**self._space.base, **settings},
            recommended=recommended,
            best=best,
            gained=recommended is not None and not recommended.is_simple,
            finalists=tuple(finalists),
            comparison=tuple(comparison),
            frontier=tuple(self._frontier(recommended, best, finalists, fitted)),
            trials=tuple(trial for _, trial in self._trials.values()),
            notes=tuple(self._notes),
            conditions=self._conditions,
        )

    def _frontier(
        self,
        recommended: Finalist | None,
        best: Finalist | None,
        finalists: Sequence[Finalist],
        fitted: Sequence[_Fitted],
    ) -> list[Finalist]:
        """Returns the settings that none surpass, among the finalists and the same shapes at other budgets."""
        others: list[_Fitted] = []
        names = {it.name for it in (recommended, best) if it is not None}
        for it in fitted:
            for factor in (it.operations / FRONTIER_STEP, it.operations * FRONTIER_STEP) if it.name in names else ():
                try:
                    found = self._fit(it.shape, max(factor, STEP))
                except RefusedError:
                    continue
                others.append(_Fitted(it.name, it.shape, found.settings, found.factor))
        known = {settings_key(self._config, it.settings) for it in finalists}
        others = [it for it in others if settings_key(self._config, it.settings) not in known]
        more: list[Finalist] = []
        if others and self._has_time("for the frontier", 0.0):
            more = self._with_speeds(self._finalists(others, on_search=False))
        frontier: list[Finalist] = []
        for point in sorted([*finalists, *more], key=lambda it: (-it.speed, it.held_back.mean_divergence)):
            if not frontier or point.held_back.mean_divergence < frontier[-1].held_back.mean_divergence:
                frontier.append(point)
        return frontier[::-1]


def _ladder() -> list[float]:
    """Returns the reduction factors that are tried for an agreement, in ascending order."""
    return [STEP**number for number in range(1, int(math.log(MAX_FACTOR) / math.log(STEP)) + 1)]


def _equal_speeds(one: float, other: float) -> bool:
    return abs(math.log(one / other)) <= math.log1p(SPEED_TOLERANCE)


def _next_factor(points: Sequence[tuple[float, float]], target: float) -> float:
    """Returns the reduction factor that should have a speed, from measured (speed, factor) pairs."""
    slower = max((it for it in points if it[0] <= target), default=None)
    faster = min((it for it in points if it[0] > target), default=None)
    if slower is None or faster is None:
        speed, factor = slower or faster or points[0]
        return max(factor * min(max(target / speed, 0.5), 2.0), STEP)
    share = math.log(target / slower[0]) / math.log(faster[0] / slower[0])
    return math.exp((1 - share) * math.log(slower[1]) + share * math.log(faster[1]))


def _divergence(trial: Trial) -> float:
    assert trial.outcomes is not None
    return trial.outcomes.mean_divergence
