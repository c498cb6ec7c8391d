"""Runs commands, each in a copy of a process that has imported all that takes long already: see `tests.commands`."""

from __future__ import annotations

import json
import os
import runpy
import sys

import av  # noqa: F401
import datasets  # noqa: F401
import evaluate  # noqa: F401
from transformers import AutoModelForVideoClassification, Trainer  # noqa: F401

import hf_video_tome.cli  # noqa: F401


def open_output(path: str) -> int:
    """A file, or a pipe that nobody reads any more."""
    if path != "closed pipe":
        return os.open(path, os.O_WRONLY | os.O_CREAT)
    read, write = os.pipe()
    os.close(read)
    return write


def start(command: dict) -> int:
    child = os.fork()
    if child:
        return child
    os.environ.update(command["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, command["stdout"]), (2, command["stderr"])):
        os.dup2(open_output(path), descriptor)
    sys.argv = ["hf_video_tome", *command["arguments"]]
    runpy.run_module("hf_video_tome", run_name="__main__", alter_sys=True)
    sys.exit()  # as Python ends, flushing what is left


for line in sys.stdin:
    children = [start(command) for command in json.loads(line)]
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
