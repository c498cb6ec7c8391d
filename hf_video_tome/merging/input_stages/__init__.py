"""What enters the first layer: one file per input stage, a pure function that registers itself under its name."""

from .random import random as random
from .registry import INPUT_STAGES, InputContext, InputStage, keep_changed, keep_tokens, register_input_stage
from .run_length import run_length as run_length
from .temporal_difference import temporal_difference as temporal_difference

__all__ = ["INPUT_STAGES", "InputContext", "InputStage", "keep_changed", "keep_tokens", "register_input_stage"]
