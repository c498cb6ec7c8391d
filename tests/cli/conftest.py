import shutil
from pathlib import Path

import pytest

from ..classified_videos import checkpoint, class_folders, readable  # noqa: F401 - fixtures


@pytest.fixture
def videos(readable: Path, tmp_path: Path) -> Path:  # noqa: F811 - the fixture
    """Ten video files, two of them in a subfolder, and one file that is no video."""
    folder = tmp_path / "plain"
    (folder / "more").mkdir(parents=True)
    for number, source in enumerate(sorted(readable.rglob("*.mp4"))):
        shutil.copy(source, folder / ("more" if number < 2 else "") / source.name)
    (folder / "notes.txt").write_text("no labels")
    return folder
