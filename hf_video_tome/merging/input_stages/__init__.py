"""What enters the first layer: one file per input stage, a pure function that registers itself under its name."""

from .random import random as random
from .registry import INPUT_STAGES, InputContext, InputStage, keep_tokens, register_input_stage

__all__ = ["INPUT_STAGES", "InputContext", "InputStage", "keep_tokens", "register_input_stage"]
