"""Writes the page of speed results from what `hf-video-tome benchmark --output FOLDER` measured.

    python examples/benchmark_page.py speed/videomae speed/vivit
    python examples/benchmark_page.py docs/speed/videomae.json docs/speed/vivit.json

Each folder (or file of results) becomes a section of `docs/speed.md`, with its table, the machine, the versions, the
command, and its data and plot, which go to `docs/speed/`. Nothing is measured here: the same files give the same page.
Needs `pip install "hf-video-tome[viz]"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_video_tome.benchmark.page import write_page

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="folders of benchmarks, or their results.json")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "speed.md", help="the page")
    options = parser.parse_args(arguments)
    try:
        written = write_page(options.results, options.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
