"""Loads saved weights, under their names in files, into a model that exists.

`save_pretrained` writes VideoMAE and ViViT weights under the names of older versions of transformers, and only
`from_pretrained` knows how to read them. What loads a file into a model by `load_state_dict` would leave those weights
as they are: `Trainer`, when it resumes or goes back to the best checkpoint.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from torch import Tensor
from transformers import PreTrainedModel

from .._compat import saved_renamings


def rename_saved_weights(model: PreTrainedModel, state_dict: MutableMapping[str, Tensor], prefix: str = "") -> None:
    """Gives weights the names that they have in the model, in place, where they have those of a file.

    Args:
        model: The model.
        state_dict: From names to weights; other names stay.
        prefix: What all names of the model begin with, such as `"module."` below a wrapper.
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
