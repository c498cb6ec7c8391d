"""Token merging for existing model instances."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig

from ._compat import attn_implementation, is_compiled_name, set_attn_implementation
from .configuration import TokenMergingConfigMixin, token_counts_of_config
from .merging.plan import Plan
from .models import ARCHITECTURES, Host
from .models.convert_modules import convert_modules, replace_config
from .models.encoder import encoder_of
from .models.find_model import FoundModel, allowed_models, find_merging_model, find_model
from .models.mac_count import MacCount
from .models.scoped_settings import REFUSAL, changes_in_scope


def _check_user(found: FoundModel, restore: bool) -> None:
    """Checks that no unsupported model uses the encoder, unless it gets the full grid.

    Raises:
        ValueError: If one does.
    """
    if found.user is not None and not restore:
        raise ValueError(
            f"{allowed_models()}, got {type(found.user).__name__}, which uses {type(found.model).__name__} in its own "
            "way (restore=True gives it the full grid of tokens)"
        )


def apply_token_merging(model: nn.Module, **settings: Any) -> nn.Module:
    """Makes an existing model merge tokens, in place: its weights, hooks and adapters are kept.

    The attention implementation is kept as well: a stock TimeSformer runs eager attention;
    `model.set_attn_implementation("sdpa")` makes it faster.

    Args:
        model: A stock model of transformers, a model of this package, or a module that contains one at any depth: a
            wrapper (peft, DDP), or with `restore=True` any model around a supported encoder. The encoder then returns
            the full grid of tokens, so that the rest of the model runs unchanged.
        **settings: r, schedule, mode, threshold, head_aggregation, proportional_attention, pooling, scope, input,
            input_keep and restore; for V-JEPA 2 also position. See `TokenMergingConfigMixin` and `VJEPA2Config`.

    Returns:
        The same object.

    Raises:
        ValueError: If the module contains no supported model or more than one, if the `forward` of an instance was
            replaced (by accelerate's `prepare`: apply token merging first), or if a setting is unknown or out of
            range. The model is then left unchanged.

    Examples:
        >>> import transformers, hf_video_tome
        >>> config = transformers.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16,
        ...                                      num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> model = transformers.VideoMAEForVideoClassification(config)
        >>> model = hf_video_tome.apply_token_merging(model, r=8)
        >>> hf_video_tome.token_counts(model)
        [32, 24, 16]
    """
    found = find_model(model)
    if found.merges:
        merging: Any = found.model
        _check_user(found, settings.get("restore", merging.config.token_merging.restore))
        merging.set_token_merging(**settings)
        return model
    _check_user(found, bool(settings.get("restore")))
    config = found.entry.config_class.from_stock(found.model.config)
    if isinstance(found.entry, Host) and found.entry.reads == "grid":
        settings = {"restore": True, **settings}
    config.update_token_merging(**settings)
    convert_modules(found.model, found.entry.merging_classes)
    replace_config(model, found.model.config, config)
    return model


def remove_token_merging(model: nn.Module) -> nn.Module:
    """Turns a model that can merge tokens back into the stock model of transformers, in place.

    Args:
        model: A model of this package, or one passed to `apply_token_merging`. A stock model is left unchanged.

    Returns:
        The same object. Its config no longer has the token merging fields; an attention implementation that the stock
        model does not support becomes "eager".

    Raises:
        ValueError: If the model is not supported.

    Examples:
        >>> import hf_video_tome
        >>> config = hf_video_tome.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16,
        ...                                       num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> model = hf_video_tome.VideoMAEForVideoClassification(config)
        >>> type(remove_token_merging(model)).__module__
        'transformers.models.videomae.modeling_videomae'
    """
    found = find_model(model)
    if not found.merges:
        _check_user(found, restore=False)
        return model
    old: Any = found.model.config
    config = old.to_stock(found.entry.stock_config_class)
    for _, encoder in found.encoders:
        known = encoder.stock_attn_implementations
        if known is not None and attn_implementation(config) not in known:
            set_attn_implementation(config, known[0])
    convert_modules(found.model, {merging: stock for stock, merging in found.entry.merging_classes.items()})
    replace_config(model, old, config)
    return model


def set_token_merging(model: nn.Module, **settings: Any) -> None:
    """Changes how a model merges tokens, at any time and without reloading it.

    Args:
        model: A model that can merge tokens, or a wrapper around one.
        **settings: Settings to change, as for `apply_token_merging`; all others keep their values.

    Raises:
        ValueError: If the model cannot merge tokens, or a setting is unknown or out of range.
    """
    found = find_merging_model(model)
    if "restore" in settings:
        _check_user(found, settings["restore"])
    merging: Any = found.model
    merging.set_token_merging(**settings)


def token_merging(model: nn.Module, **settings: Any) -> AbstractContextManager[None]:
    """Changes how a model merges tokens for the calls inside a `with` block.

    The change applies to the same thread or async task only, so that requests with different settings can share one
    model. Settings passed to a call take precedence over those of the innermost block, and these over the config. The
    change ends with the block, even after an exception.

    Threads and executors started inside the block do not see it. Compiled models only accept settings in the call, as
    in `model(pixel_values, token_merging_r=98)`; called inside a block, they raise an error.

    Args:
        model: A model that can merge tokens, or a wrapper around one (peft, DDP).
        **settings: Settings to change, as for `apply_token_merging`; all others keep their values.

    Returns:
        The context manager.

    Raises:
        ValueError: If the model cannot merge tokens, or a setting is unknown or out of range. Whether the settings are
            compatible with each other and with the config is checked when the model is called.
        RuntimeError: If the model is compiled.

    Examples:
        >>> import hf_video_tome
        >>> config = hf_video_tome.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16,
        ...                                       num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> model = hf_video_tome.VideoMAEForVideoClassification(config)
        >>> with hf_video_tome.token_merging(model, r=8):
        ...     hf_video_tome.token_counts(model)
        [32, 24, 16]
        >>> hf_video_tome.token_counts(model)
        [32, 32, 32]
    """
    found: Any = find_merging_model(model).model
    if any(is_compiled_name(name) for name, _ in model.named_modules()):
        raise RuntimeError(REFUSAL)
    return cast(AbstractContextManager[None], found.token_merging(**settings))


def token_counts(model_or_config: nn.Module | TokenMergingConfigMixin) -> list[int]:
    """Returns the number of tokens before the first layer and after each layer, without running the model.

    Args:
        model_or_config: A model that can merge tokens, or its config. For a model, the settings of surrounding
            `token_merging` blocks count.

    Returns:
        L + 1 ints; entry i is the length of `hidden_states[i]`.

    Raises:
        ValueError: If the model or config has no token merging fields.

    Examples:
        >>> import hf_video_tome
        >>> hf_video_tome.token_counts(hf_video_tome.VivitConfig(token_merging_r=300))[-1]
        56
    """
    if isinstance(model_or_config, nn.Module):
        model: Any = find_merging_model(model_or_config).model
        return token_counts_of_config(model.config, model.current_token_merging())
    model_or_config = getattr(model_or_config, "token_merging_config", model_or_config)
    if not isinstance(model_or_config, TokenMergingConfigMixin):
        raise ValueError(f"model_or_config must have token merging fields, got {type(model_or_config).__name__}")
    return token_counts_of_config(model_or_config)


def token_merging_plan(model: nn.Module, **settings: Any) -> Plan:
    """Returns the plan of a call with some settings changed, for clips of the shape given by the config.

    Args:
        model: A model that can merge tokens, or a wrapper around one.
        **settings: Settings to change, as for `apply_token_merging`; all others come from the surrounding
            `token_merging` blocks and the config.

    Returns:
        What each layer does.

    Raises:
        ValueError: If the model cannot merge tokens, or a setting is unknown or out of range.
    """
    merging: Any = find_merging_model(model).model
    config = getattr(merging.config, "token_merging_config", merging.config)
    changed = merging.current_token_merging(config.full_names(settings))
    plan: Plan = config.token_merging_plan(settings=changed)
    return plan


def mac_count(model_or_config: nn.Module | PreTrainedConfig, **settings: Any) -> MacCount:
    """Counts the multiply-accumulates (MACs) of classifying one clip exactly, without running the model.

    The count covers the patch embedding, all linear layers, both matrix products of attention, the similarities of the
    matching, the pooler and the classifier. It does not cover biases, norms, activations, softmax, sorting and the
    merging itself. It assumes that the states of all layers are returned; models whose classifier reads CLS compute
    less in their last layer if only logits are requested. All architectures except TimeSformer and VideoPrism merge
    before the output projection of attention. If all tokens were projected, as in the paper, VideoMAE with r = 150
    would save a factor of 2.43 instead of 2.46.

    Args:
        model_or_config: A classifier, a base model or a config, of transformers or of this package. The clip has the
            shape given by the config, and a classifier is always included.
        **settings: Token merging settings to count with, as for `apply_token_merging`. All others come from the
            surrounding `token_merging` blocks and the config; a config of transformers has r = 0.

    Returns:
        The count, in total, by part and by layer.

    Raises:
        ValueError: If the model or config is not supported, or a setting is unknown or out of range.

    Examples:
        >>> import transformers
        >>> config = transformers.VideoMAEConfig()
        >>> stock, merged = mac_count(config), mac_count(config, r=150)
        >>> round(stock.total / 1e9, 1), round(stock.total / merged.total, 2)
        (180.3, 2.46)
    """
    model: Any = find_model(model_or_config).model if isinstance(model_or_config, nn.Module) else None
    config: Any = model_or_config if model is None else model.config
    config = getattr(config, "token_merging_config", config)
    encoder = encoder_of(config, config)
    merges = isinstance(config, TokenMergingConfigMixin)
    config = encoder.config_class.from_stock(config)
    scoped = changes_in_scope(model) if merges and model is not None else {}
    config.update_token_merging(**{**scoped, **config.full_names(settings if merges else {"r": 0, **settings})})
    return encoder.mac_count(config)


def paper_settings(model_type: str) -> dict[str, Any]:
    """Returns the settings of "Video, How Do Your Tokens Merge?" (CVPRW 2025) for the base size of an architecture.

    Args:
        model_type: Model type of the config: "videomae", "vivit", "timesformer" or "motionformer".

    Returns:
        Settings for `apply_token_merging` and `set_token_merging`.

    Raises:
        ValueError: If the architecture is unknown or does not appear in the paper.

    Examples:
        >>> paper_settings("timesformer")["scope"]
        'frame'
    """
    settings = {name: architecture.paper_settings for name, architecture in ARCHITECTURES.items()}
    if not settings.get(model_type):
        allowed = ", ".join(repr(name) for name, found in settings.items() if found)
        raise ValueError(f"model_type must be one of {allowed} (those of the paper), got {model_type!r}")
    return dict(settings[model_type])
