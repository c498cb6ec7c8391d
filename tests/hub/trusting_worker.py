"""transformers in a process where this package cannot be imported: what does it make of checkpoint folders?

Arguments: files with a JSON list of requests, each followed by the file for the answers. A request has a folder, a
file of pixel values, and maybe a folder to save the loaded model in. Each list has a process of its own, in which
nothing was loaded before.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


class Blocker(MetaPathFinder):
    """Makes the package as good as not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.split(".")[0] == "hf_video_tome":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


sys.meta_path.insert(0, Blocker())
try:
    import hf_video_tome  # noqa: F401
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package must not be importable here")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoImageProcessor, AutoModelForVideoClassification  # noqa: E402

torch.set_num_threads(1)


def answer(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = []
    for request in requests:
        answer: dict[str, Any] = {}
        if "pixel_values" in request:
            pixel_values = torch.from_numpy(np.load(request["pixel_values"]))
            model, info = AutoModelForVideoClassification.from_pretrained(
                request["folder"], trust_remote_code=request["trust"], output_loading_info=True
            )
            with torch.no_grad():
                answer["logits"] = model.eval()(pixel_values).logits.tolist()
            answer["class"] = f"{type(model).__module__}.{type(model).__name__}"
            answer["missing_keys"] = sorted(info["missing_keys"])
            answer["unexpected_keys"] = sorted(info["unexpected_keys"])
            fields = getattr(model.config, "token_merging_fields", {})  # a stock config has none
            answer["settings"] = {name: info.description for name, info in fields.items()}
            answer["help"] = type(model.config).__doc__
            if "save" in request:
                model.save_pretrained(request["save"])
        else:
            processor = AutoImageProcessor.from_pretrained(request["folder"], trust_remote_code=True)
            frames = np.load(request["frames"])
            answer["pixel_values"] = processor(frames)["pixel_values_videos"].tolist()
        answers.append(answer)
    return answers


def answer_in(requests: Path, answers: Path) -> None:
    answers.write_text(json.dumps(answer(json.loads(requests.read_text()))))


fork, files = multiprocessing.get_context("fork"), list(map(Path, sys.argv[1:]))
for pair in zip(files[::2], files[1::2], strict=True):
    process = fork.Process(target=answer_in, args=pair)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)
