from __future__ import annotations

from pathlib import Path

from hf_video_tome.evaluation.journal import Journal

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
