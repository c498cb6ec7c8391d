"""Input stages, which choose the tokens of the first layer: one file each, a pure function in the registry."""

from .random import random
from .registry import INPUT_STAGES, InputContext, InputStage, keep_tokens, register_input_stage

__all__ = ["INPUT_STAGES", "InputContext", "InputStage", "keep_tokens", "random", "register_input_stage"]
