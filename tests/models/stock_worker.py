"""Plain transformers in a process of its own: answers, line by line, what it makes of a checkpoint folder.

A request is a JSON object with the folder, a file of pixel values (npy) and keyword arguments of `from_pretrained`.
The answer holds the logits and the class of the model, or the error.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from transformers import AutoModelForVideoClassification

torch.set_num_threads(1)
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    request = json.loads(line)
    try:
        model, info = AutoModelForVideoClassification.from_pretrained(
            request["folder"], output_loading_info=True, **request["kwargs"]
        )
        with torch.no_grad():
            logits = model.eval()(torch.from_numpy(np.load(request["pixel_values"]))).logits
        answer = {
            "logits": logits.tolist(),
            "class": f"{type(model).__module__}.{type(model).__name__}",
            "missing_keys": sorted(info["missing_keys"]),
            "unexpected_keys": sorted(info["unexpected_keys"]),
        }
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    answer["plugin_imported"] = "hf_video_tome" in sys.modules
    print(json.dumps(answer), file=answers, flush=True)
