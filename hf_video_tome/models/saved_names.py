"""Loads saved weights into an existing model.

`save_pretrained` writes VideoMAE and ViViT weights under the names of older versions of transformers, which only
`from_pretrained` can read. `load_state_dict` would skip these weights: `Trainer` calls it to resume and to load the
best checkpoint.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from torch import Tensor
from transformers import PreTrainedModel

from .._compat import saved_renamings


def rename_saved_weights(model: PreTrainedModel, state_dict: MutableMapping[str, Tensor], prefix: str = "") -> None:
    """Renames weights from their names in files to those in the model, in place.

    Args:
        model: The model.
        state_dict: Weights by name; unknown names are kept.
        prefix: Prefix of all names of the model, such as `"module."` inside a wrapper.
    """
    known = model.state_dict().keys()
    unknown = [name for name in state_dict if name.startswith(prefix) and name[len(prefix) :] not in known]
    if not unknown:
        return
    rename = saved_renamings(model)
    for name in unknown:
        renamed = rename(name[len(prefix) :])
        if renamed in known and prefix + renamed not in state_dict:
            state_dict[prefix + renamed] = state_dict.pop(name)
