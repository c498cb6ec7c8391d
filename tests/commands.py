"""Commands in processes of their own, without the seconds that each would take to import the package."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# What torchrun tells each process that it starts.
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def environments_of_torchrun(count: int) -> list[dict[str, str]]:
    """What `count` processes on this machine are told."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    told = [(str(rank), str(rank), str(count), "127.0.0.1", port) for rank in range(count)]
    return [dict(zip(OF_TORCHRUN, values, strict=True)) for values in told]


class Done(NamedTuple):
    """How a command ended. Where its outputs went elsewhere, they are empty here."""

    returncode: int
    stdout: str
    stderr: str


class Commands:
    """One process has imported the package, and runs each command in a copy of itself."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("command_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def run(self, *arguments: object, stdout: str | None = None) -> Done:
        """Runs `python -m hf_video_tome` with these arguments, and its output to a file or to a "closed pipe"."""
        (done,) = self.run_together(arguments, stdout=stdout)
        return done

    def run_together(
        self, arguments: tuple[object, ...], *environments: dict[str, str], stdout: str | None = None
    ) -> list[Done]:
        """Runs it in each of these environments at once."""
        requests = []
        for environment in environments or ({},):
            self.count += 1
            outputs = [str(self.folder / f"{name}-{self.count}") for name in ("stdout", "stderr")]
            requests.append(
                {
                    "arguments": [str(argument) for argument in arguments],
                    "environment": environment,
                    "stdout": stdout or outputs[0],
                    "stderr": outputs[1],
                }
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(requests) + "\n")
        self.process.stdin.flush()
        codes = json.loads(self.process.stdout.readline())
        return [
            Done(code, "" if stdout else Path(request["stdout"]).read_text(), Path(request["stderr"]).read_text())
            for code, request in zip(codes, requests, strict=True)
        ]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    running = Commands(tmp_path_factory.mktemp("commands"))
    yield running
    running.close()
