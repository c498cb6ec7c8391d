"""Analyses of token merging: accuracy against r, confusions, merges of each layer, and clip splicing.

One file per analysis; computing and drawing a result are separate functions. Names are imported on first use. Only the
drawing functions need matplotlib: `pip install "hf-video-tome[viz]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .accuracy import AccuracyCurve, AccuracyPoint, accuracy_curves, draw_accuracy, setting_grid
    from .clips import Clips, load_clips
    from .confusion import ConfusionChange, choose_classes, compare_confusions, confusion_counts, draw_confusion
    from .estimates import Estimate, estimate
    from .keys import unmerged_keys
    from .layers import LayerStudy, draw_layers, duplicate_layer, save_layer_groups, study_layers
    from .partners import partner_means, random_partner_mean
    from .splice import (
        SpliceStudy,
        draw_splices,
        save_splice_examples,
        splice_frames,
        splice_mask,
        study_splices,
        whole_classes,
    )

__all__ = [
    "AccuracyCurve",
    "AccuracyPoint",
    "Clips",
    "ConfusionChange",
    "Estimate",
    "LayerStudy",
    "SpliceStudy",
    "accuracy_curves",
    "choose_classes",
    "compare_confusions",
    "confusion_counts",
    "draw_accuracy",
    "draw_confusion",
    "draw_layers",
    "draw_splices",
    "duplicate_layer",
    "estimate",
    "load_clips",
    "partner_means",
    "random_partner_mean",
    "save_layer_groups",
    "save_splice_examples",
    "setting_grid",
    "splice_frames",
    "splice_mask",
    "study_layers",
    "study_splices",
    "unmerged_keys",
    "whole_classes",
]

__getattr__, __dir__ = lazy_names(__name__)
