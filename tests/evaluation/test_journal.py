from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from hf_video_tome.evaluation.journal import Journal, JournalRemovedError, write_atomically

ROWS = [{"position": position, "setting": 0, "name": "ü"} for position in range(4)]


def test_rows_are_there_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.append(ROWS[:2])
        assert Journal(tmp_path, 1).rows() == ROWS[:2]


def test_the_rows_of_all_processes_are_read(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as first, Journal(tmp_path, 1) as second:
        second.append(ROWS[2:])
        first.append(ROWS[:2])
        assert first.rows() == second.rows() == ROWS


def test_a_line_that_was_cut_off_is_ignored(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.append(ROWS)
    content = journal.path.read_bytes()
    for cut in range(1, len(content.splitlines()[-1]) + 1):
        journal.path.write_bytes(content[:-cut])
        assert journal.rows() == ROWS[:-1]


def test_new_rows_come_once_and_only_when_finished(tmp_path: Path) -> None:
    reader = Journal(tmp_path, 0)
    with Journal(tmp_path, 1) as writer:
        writer.append(ROWS[:1])
        assert reader.new_rows() == ROWS[:1]
        assert reader.new_rows() == []
        whole = writer.path.read_bytes()
        writer.append(ROWS[1:2])
        later = writer.path.read_bytes()
        writer.path.write_bytes(later[:-5])
        assert reader.new_rows() == []
        writer.path.write_bytes(later)
        assert reader.new_rows() == ROWS[1:2]
    assert later.startswith(whole)


def test_replacing_leaves_one_journal_with_these_rows(tmp_path: Path) -> None:
    for process in range(3):
        with Journal(tmp_path, process) as journal:
            journal.append(ROWS)
    Journal(tmp_path, 0).replace(ROWS[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["journal-00000.jsonl"]
    assert Journal(tmp_path, 2).rows() == ROWS[:1]
    with Journal(tmp_path, 0) as journal:
        journal.append(ROWS[1:])
    assert journal.rows() == ROWS


def test_deleting_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.append(ROWS)
    journal.delete()
    assert journal.rows() == []
    assert list(tmp_path.iterdir()) == []


def test_journals_without_checksums_of_older_versions_are_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    assert journal.rows() == ROWS


def test_every_changed_character_is_noticed_and_its_line_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.append(ROWS)
    content = journal.path.read_bytes()
    ends = [place for place, character in enumerate(content) if character == ord("\n")]
    for place in set(range(len(content))) - set(ends):  # without its end, the last line is one that was cut off
        changed = bytearray(content)
        changed[place] ^= 1
        journal.path.write_bytes(changed)
        line = 1 + sum(end < place for end in ends)
        with pytest.raises(ValueError, match=rf"journal-00000\.jsonl: line {line} is damaged \(") as error:
            journal.rows()
        for advice in ("restore an intact copy", "delete that line", "--resume", "--overwrite"):
            assert advice in str(error.value)


@pytest.mark.parametrize("line", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"setting": 0}', b'{"position": 0}', b"null"])
def test_lines_that_never_were_a_prediction_are_refused(tmp_path: Path, line: bytes) -> None:
    with Journal(tmp_path, 1) as journal:
        journal.append(ROWS[:2])
    journal.path.write_bytes(journal.path.read_bytes() + line + b"\n")
    for read in (journal.rows, Journal(tmp_path, 0).new_rows):
        with pytest.raises(ValueError, match=r"journal-00001\.jsonl: line 3 is damaged"):
            read()


def test_lines_are_counted_over_several_readings(tmp_path: Path) -> None:
    reader = Journal(tmp_path, 0)
    with Journal(tmp_path, 1) as writer:
        writer.append(ROWS)
        assert reader.new_rows() == ROWS
    writer.path.write_bytes(writer.path.read_bytes() + b"x\n")
    with pytest.raises(ValueError, match="line 5 is damaged"):
        reader.new_rows()


@pytest.mark.parametrize("put_back", [False, True])
def test_a_journal_that_is_gone_is_noticed_at_once(tmp_path: Path, put_back: bool) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with Journal(folder, 0) as journal:
        journal.append(ROWS[:1])
        folder.rename(tmp_path / "elsewhere")
        if put_back:
            folder.mkdir()
            Journal(folder, 0).replace(ROWS)
        for use in (journal.check_there, journal.new_rows, lambda: journal.append(ROWS)):
            with pytest.raises(JournalRemovedError, match="removed while the evaluation was writing"):
                use()


def test_a_disk_that_is_full_leaves_no_scratch_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "results.json", "{}")
    assert list(tmp_path.iterdir()) == []
