"""Writes the page of speed results from the output of `hf-video-tome benchmark --output FOLDER`.

    python examples/benchmark_page.py speed/videomae speed/vivit
    python examples/benchmark_page.py docs/speed/videomae.json docs/speed/vivit.json

Each folder (or results file) becomes a section of `docs/speed.md` with its table, machine, versions and command; its
data and plot are written to `docs/speed/`. Nothing is measured here: the same files give the same page.
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
    parser.add_argument("results", nargs="+", type=Path, help="benchmark folders, or their results.json")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "speed.md", help="output page")
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
