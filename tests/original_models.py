"""VideoMAE and TimeSformer as their papers describe them, with the parameter names of the original implementations.

Written for the tests of the conversion, in float64 and without any code of transformers: nothing here is fast, and
tokens lie in (batch, time, place, channel) rather than in a sequence where that says more plainly what is attended to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

LAYERS, WIDTH, HEADS, MLP = 2, 128, 2, 96
FRAMES, SIZE, PATCH, TUBELET = 4, 32, 16, 2


def _random(*shape: int, generator: torch.Generator, scale: float = 0.2) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


def _linear(weights: dict[str, Tensor], name: str, outputs: int, inputs: int, generator: torch.Generator) -> None:
    weights[f"{name}.weight"] = _random(outputs, inputs, generator=generator)
    weights[f"{name}.bias"] = _random(outputs, generator=generator)


def _norm(weights: dict[str, Tensor], name: str, generator: torch.Generator) -> None:
    weights[f"{name}.weight"] = 1 + _random(WIDTH, generator=generator)
    weights[f"{name}.bias"] = _random(WIDTH, generator=generator)


def videomae_weights(num_labels: int = 5, mean_pooling: bool = True, qkv_bias: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights: dict[str, Tensor] = {}
    weights["patch_embed.proj.weight"] = _random(WIDTH, 3, TUBELET, PATCH, PATCH, generator=generator, scale=0.05)
    weights["patch_embed.proj.bias"] = _random(WIDTH, generator=generator)
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        _norm(weights, f"{block}.norm1", generator)
        weights[f"{block}.attn.qkv.weight"] = _random(3 * WIDTH, WIDTH, generator=generator)
        if qkv_bias:
            weights[f"{block}.attn.q_bias"] = _random(WIDTH, generator=generator)
            weights[f"{block}.attn.v_bias"] = _random(WIDTH, generator=generator)
        _linear(weights, f"{block}.attn.proj", WIDTH, WIDTH, generator)
        _norm(weights, f"{block}.norm2", generator)
        _linear(weights, f"{block}.mlp.fc1", MLP, WIDTH, generator)
        _linear(weights, f"{block}.mlp.fc2", WIDTH, MLP, generator)
    _norm(weights, "fc_norm" if mean_pooling else "norm", generator)
    _linear(weights, "head", num_labels, WIDTH, generator)
    return weights


def timesformer_weights(num_labels: int = 5, divided: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    weights: dict[str, Tensor] = {}
    weights["cls_token"] = _random(1, 1, WIDTH, generator=generator)
    weights["pos_embed"] = _random(1, 1 + (SIZE // PATCH) ** 2, WIDTH, generator=generator)
    weights["time_embed"] = _random(1, FRAMES, WIDTH, generator=generator)
    weights["patch_embed.proj.weight"] = _random(WIDTH, 3, PATCH, PATCH, generator=generator, scale=0.05)
    weights["patch_embed.proj.bias"] = _random(WIDTH, generator=generator)
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        for prefix in ("", "temporal_") if divided else ("",):
            _norm(weights, f"{block}.{prefix}norm1", generator)
            _linear(weights, f"{block}.{prefix}attn.qkv", 3 * WIDTH, WIDTH, generator)
            _linear(weights, f"{block}.{prefix}attn.proj", WIDTH, WIDTH, generator)
        if divided:
            _linear(weights, f"{block}.temporal_fc", WIDTH, WIDTH, generator)
        _norm(weights, f"{block}.norm2", generator)
        _linear(weights, f"{block}.mlp.fc1", MLP, WIDTH, generator)
        _linear(weights, f"{block}.mlp.fc2", WIDTH, MLP, generator)
    _norm(weights, "norm", generator)
    _linear(weights, "head", num_labels, WIDTH, generator)
    return weights


def _apply(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normalise(weights: dict[str, Tensor], name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    return layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def _attend(weights: dict[str, Tensor], name: str, x: Tensor, qkv_bias: Tensor) -> Tensor:
    """Attention along the last but one axis."""
    qkv = x @ weights[f"{name}.qkv.weight"].T + qkv_bias
    query, key, value = qkv.unflatten(-1, (3, HEADS, WIDTH // HEADS)).unbind(-3)
    logits = torch.einsum("...ihd,...jhd->...hij", query, key) / math.sqrt(WIDTH // HEADS)
    context = torch.einsum("...hij,...jhd->...ihd", logits.softmax(-1), value)
    return _apply(weights, f"{name}.proj", context.flatten(-2))


def _mlp(weights: dict[str, Tensor], block: str, x: Tensor) -> Tensor:
    return _apply(weights, f"{block}.mlp.fc2", gelu(_apply(weights, f"{block}.mlp.fc1", x)))


def _patches(pixel_values: Tensor, frames: int) -> Tensor:
    """(B, T, 3, H, W) to (B, T', P, 3 * frames * PATCH * PATCH)."""
    batch = pixel_values.shape[0]
    grid = SIZE // PATCH
    cut = pixel_values.reshape(batch, -1, frames, 3, grid, PATCH, grid, PATCH)
    return cut.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(batch, -1, grid * grid, 3 * frames * PATCH * PATCH)


def sine_cosine_positions(length: int) -> Tensor:
    """(1, length, WIDTH), rounded to float32 as in the original."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    angle = position / 10000 ** (torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[None].float().double()


def videomae_logits(weights: dict[str, Tensor], pixel_values: Tensor, fc_norm_eps: float = 1e-6) -> Tensor:
    """Logits of VideoMAE for (B, T, 3, H, W)."""
    x = _patches(pixel_values, TUBELET).flatten(1, 2) @ weights["patch_embed.proj.weight"].flatten(1).T
    x = x + weights["patch_embed.proj.bias"]
    x = x + sine_cosine_positions(x.shape[1])
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        bias = torch.zeros(3 * WIDTH, dtype=x.dtype)
        if f"{block}.attn.q_bias" in weights:
            bias[:WIDTH], bias[2 * WIDTH :] = weights[f"{block}.attn.q_bias"], weights[f"{block}.attn.v_bias"]
        x = x + _attend(weights, f"{block}.attn", _normalise(weights, f"{block}.norm1", x), bias)
        x = x + _mlp(weights, block, _normalise(weights, f"{block}.norm2", x))
    if "fc_norm.weight" in weights:
        return _apply(weights, "head", _normalise(weights, "fc_norm", x.mean(1), fc_norm_eps))
    return _apply(weights, "head", _normalise(weights, "norm", x)[:, 0])


def timesformer_logits(weights: dict[str, Tensor], pixel_values: Tensor) -> Tensor:
    """Logits of TimeSformer for (B, T, 3, H, W), with divided or joint attention."""
    x = _patches(pixel_values, 1) @ weights["patch_embed.proj.weight"].flatten(1).T + weights["patch_embed.proj.bias"]
    batch, frames, places, _ = x.shape
    x = x + weights["pos_embed"][:, None, 1:] + weights["time_embed"][:, :, None]
    cls = (weights["cls_token"] + weights["pos_embed"][:, :1]).expand(batch, -1, -1)
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        bias = weights[f"{block}.attn.qkv.bias"]
        if f"{block}.temporal_fc.weight" in weights:
            normed = _normalise(weights, f"{block}.temporal_norm1", x).transpose(1, 2)  # time is attended along
            over_time = _attend(weights, f"{block}.temporal_attn", normed, weights[f"{block}.temporal_attn.qkv.bias"])
            x = x + _apply(weights, f"{block}.temporal_fc", over_time).transpose(1, 2)
            frame = torch.cat((cls[:, None].expand(-1, frames, -1, -1), x), 2)
            over_space = _attend(weights, f"{block}.attn", _normalise(weights, f"{block}.norm1", frame), bias)
            cls, x = cls + over_space[:, :, :1].mean(1), x + over_space[:, :, 1:]
        else:
            clip = torch.cat((cls, x.flatten(1, 2)), 1)
            over_clip = _attend(weights, f"{block}.attn", _normalise(weights, f"{block}.norm1", clip), bias)
            cls, x = cls + over_clip[:, :1], x + over_clip[:, 1:].unflatten(1, (frames, places))
        cls = cls + _mlp(weights, block, _normalise(weights, f"{block}.norm2", cls))
        x = x + _mlp(weights, block, _normalise(weights, f"{block}.norm2", x))
    return _apply(weights, "head", _normalise(weights, "norm", cls)[:, 0])
