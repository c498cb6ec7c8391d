"""Motionformer model configuration."""

from itertools import pairwise

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class MotionformerConfig(PreTrainedConfig):
    r"""Configuration of a Motionformer model.

    From "Keeping Your Eye on the Ball: Trajectory Attention in Video Transformers" (NeurIPS 2021),
    https://arxiv.org/abs/2106.05392. The defaults yield the base model for 16 frames of 224 x 224 pixels, or 8 x 14 x
    14 tubelets.

    Attributes:
        image_size: Height and width of the frames in pixels: one int for both, or (height, width).
        num_frames: Number of frames of a clip.
        tubelet_size: Number of frames of a tubelet; must divide `num_frames`.
        patch_size: Height and width of a tubelet in pixels: one int for both, or (height, width).
        num_channels: Number of channels of a frame.
        hidden_size: Width of the tokens.
        num_hidden_layers: Number of layers.
        num_attention_heads: Number of attention heads per layer; must divide `hidden_size`.
        intermediate_size: Width of the MLP.
        hidden_act: Activation of the MLP.
        hidden_dropout_prob: Dropout probability of the embeddings and of the outputs of attention and MLP.
        attention_probs_dropout_prob: Dropout probability of the attention weights, spatial and temporal.
        classifier_dropout_prob: Dropout probability of the classifier input.
        drop_path_rate: Stochastic depth rate of the last layer; increases linearly from 0 in the first layer.
        initializer_range: Standard deviation of the normal distribution for initialising weights.
        layer_norm_eps: Epsilon of the layer norms.
        qkv_bias: Whether queries, keys and values have a bias.
        use_original_trajectory_values: Whether temporal attention averages the trajectory itself, as in the released
            checkpoints, or a linear projection of it, as in the paper.
        use_pre_logits: Whether to add a linear layer and tanh before the classifier.
        label_groups: Tasks of a multi-task head: half-open ranges of outputs by name. EPIC-KITCHENS-100 has
            `{"verb": [0, 97], "noun": [97, 397]}`. None for a single task.

    Examples:
        >>> config = MotionformerConfig(num_labels=397, label_groups={"verb": [0, 97], "noun": [97, 397]})
        >>> config.num_frames // config.tubelet_size
        8
    """

    model_type = "motionformer"

    image_size: int | list[int] | tuple[int, int] = 224
    num_frames: int = 16
    tubelet_size: int = 2
    patch_size: int | list[int] | tuple[int, int] = 16
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    classifier_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    use_original_trajectory_values: bool = True
    use_pre_logits: bool = True
    label_groups: dict[str, list[int]] | None = None

    def validate_architecture(self) -> None:
        """Part of `@strict`-powered validation. Validates the architecture of the config."""
        super().validate_architecture()
        for name in ("num_frames", "tubelet_size", "num_channels", "hidden_size", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        sizes = {}
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            sizes[name] = (value, value) if isinstance(value, int) else tuple(value)
            if len(sizes[name]) != 2 or min(sizes[name]) < 1:
                raise ValueError(f"{name} must be an int of at least 1, or two of them (height, width), got {value}")
        if any(image < patch for image, patch in zip(sizes["image_size"], sizes["patch_size"], strict=True)):
            raise ValueError(f"image_size must be at least patch_size={self.patch_size}, got {self.image_size}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads={self.num_attention_heads}, "
                f"got {self.hidden_size}"
            )
        if self.num_frames % self.tubelet_size:
            raise ValueError(
                f"num_frames must be a multiple of tubelet_size={self.tubelet_size}, got {self.num_frames}"
            )
        if self.label_groups is not None:
            ranges = sorted(self.label_groups.values())
            edges = [0, *(limits[-1] for limits in ranges if limits)]
            # The head checks whether they fit `num_labels`: both may be replaced one after the other.
            ascending = len(edges) > 1 and edges == sorted(set(edges))
            if not ascending or ranges != [list(limits) for limits in pairwise(edges)]:
                raise ValueError(
                    "label_groups must map names to ranges that divide the num_labels outputs, as "
                    f'{{"verb": [0, 97], "noun": [97, 397]}} does for 397, got {self.label_groups!r}'
                )


__all__ = ["MotionformerConfig"]
