"""A setting is written once: its field says all that configs, commands, docs and errors need."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from pathlib import Path

import pytest

from hf_video_tome.describe import mode_options_table, setting_name, settings_table
from hf_video_tome.merging import INPUT_STAGES, MODES, SETTINGS, SettingError, TokenMergingSettings, register_mode
from hf_video_tome.merging.settings import names_without_torch

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
NAMES = [it.name for it in fields(TokenMergingSettings)]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_passes_the_check_and_something_does_not(name: str) -> None:
    default = getattr(TokenMergingSettings(), name)
    assert SETTINGS[name].check(default) == default
    with pytest.raises(SettingError, match=f"^{name} must be .*, got <object") as caught:
        SETTINGS[name].check(object())
    assert caught.value.field == name


@pytest.mark.parametrize("name", NAMES)
def test_constructor_and_changed_check_alike(name: str) -> None:
    made = []
    for make in (TokenMergingSettings, TokenMergingSettings().changed):
        with pytest.raises(SettingError, match=f"^{name} must be .*, got <object"):
            make(**{name: object()})
        made.append(make(r=[4, 2], threshold=1))
    assert made[0] == made[1]
    assert (made[0].r, type(made[0].threshold)) == ((4, 2), float)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_does(name: str) -> None:
    description = SETTINGS[name].description
    assert description[0].isupper()
    assert description.endswith(".")
    assert "{" not in description
    assert setting_name({name: getattr(TokenMergingSettings(), name) or 0.5})


def test_the_docs_have_the_table_of_today() -> None:
    assert settings_table() in PAGE.read_text(), "docs/settings.md must hold what describe.settings_table() returns"
    assert mode_options_table() in PAGE.read_text(), "docs/settings.md must hold what mode_options_table() returns"


@pytest.mark.parametrize(
    ("folder", "registry", "entries"), [("modes", "MODES", MODES), ("input_stages", "INPUT_STAGES", INPUT_STAGES)]
)
def test_entries_are_files_named_after_them(folder: str, registry: str, entries: dict, monkeypatch) -> None:
    assert names_without_torch(folder, registry) == sorted(entries)
    monkeypatch.delitem(__import__("sys").modules, f"hf_video_tome.merging.{folder}")
    assert names_without_torch(folder, registry) == sorted(entries)


def test_a_registered_mode_is_allowed_and_described(monkeypatch) -> None:
    monkeypatch.setattr("hf_video_tome.merging.modes.MODES", registry := dict(MODES))
    monkeypatch.setattr("hf_video_tome.merging.modes.registry.MODES", registry)
    register_mode("newest")(lambda context: None)
    assert SETTINGS["mode"].check("newest") == "newest"
    assert ", newest, " in SETTINGS["mode"].description
    with pytest.raises(SettingError, match="'newest'"):
        SETTINGS["mode"].check("oldest")


class TestErrors:
    ERROR = SettingError("mode", "melt", "one of 'merge'", optional=True, given={"r": 3}, because="it is so")

    def test_say_all(self) -> None:
        assert str(self.ERROR) == "mode must be one of 'merge', or None with r=3 (it is so), got 'melt'"

    def test_say_it_as_a_command_line_would(self) -> None:
        message = self.ERROR.message(lambda name: f"--{name}", " ", takes_none=False)
        assert message == "--mode must be one of 'merge' with --r 3 (it is so), got 'melt'"

    def test_take_other_names(self) -> None:
        renamed = self.ERROR.renamed(str.upper)
        assert (renamed.field, renamed.given, renamed.value) == ("MODE", {"R": 3}, "melt")

    @pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
    def test_survive_the_way_from_a_worker(self, copied) -> None:
        assert vars(copied(self.ERROR)) == vars(self.ERROR)
        assert str(copied(self.ERROR)) == str(self.ERROR)
        noted = copied(self.ERROR)
        noted.add_note("in process 1")
        assert copied(noted).__notes__ == noted.renamed(str.upper).__notes__ == ["in process 1"]
