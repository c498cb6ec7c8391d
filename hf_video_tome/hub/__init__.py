"""Sharing checkpoints that merge tokens: model cards, uploads to the Hub, and code saved with the weights."""

from .card import (
    BaseCheckpoint,
    card_data,
    check_evaluation,
    model_card,
    read_base_checkpoint,
    read_evaluation,
    render_card,
)
from .checkpoint import push_to_hub, save_checkpoint, upload_checkpoint
from .remote_code import RemoteCode, collect_remote_code, save_remote_code

__all__ = [
    "BaseCheckpoint",
    "RemoteCode",
    "card_data",
    "check_evaluation",
    "collect_remote_code",
    "model_card",
    "push_to_hub",
    "read_base_checkpoint",
    "read_evaluation",
    "render_card",
    "save_checkpoint",
    "save_remote_code",
    "upload_checkpoint",
]
