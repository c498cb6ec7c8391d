from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from hf_video_tome.cli.merging_options import MergingOptions
from hf_video_tome.cli.option_groups import grouped_options
from hf_video_tome.configuration import PREFIX
from hf_video_tome.models import ARCHITECTURES


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option("--width", "-w", min=1, help="How wide.")] = 3
    name: Annotated[list[str] | None, typer.Option("--name", help="What it is called.")] = None


@dataclass(frozen=True)
class Place:
    size: Annotated[str, typer.Option("--size", help="An option with the name of a group.")]


seen: list[Any] = []


@grouped_options
def command(
    file: Annotated[str, typer.Argument(metavar="FILE")],
    *,
    first: Annotated[bool, typer.Option("--first", help="Before the group.")] = False,
    size: Size,
    last: Annotated[bool, typer.Option("--last", help="After the group.")] = False,
    place: Place,
) -> None:
    seen.append((file, first, size, last, place))


def invoke(*arguments: str) -> Any:
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(command)
    seen.clear()
    return CliRunner().invoke(app, [*arguments])


def test_the_options_of_a_group_stand_in_its_place_in_the_help() -> None:
    text = " ".join(invoke("--help").output.split())
    parts = ("Before the group.", "--width", "How wide.", "default: 3", "--name", "After the group.", "--size")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "--place" not in text


def test_a_command_gets_its_groups_with_the_values_and_the_defaults() -> None:
    assert invoke("a.mp4", "-w", "5", "--name", "x", "--name", "y", "--last", "--size", "s").exit_code == 0
    assert seen == [("a.mp4", False, Size(5, ["x", "y"]), True, Place("s"))]
    assert invoke("a.mp4", "--size", "s").exit_code == 0
    assert seen == [("a.mp4", False, Size(3, None), False, Place("s"))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "--size", "s", "--width", "0"], "--width"),
        (["a.mp4"], "Missing option '--size'"),
        (["a.mp4", "--size", "s", "--place", "here"], "No such option: --place"),
    ],
)
def test_typer_checks_the_options_of_a_group(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not seen


def test_a_name_that_two_have_is_refused_where_the_command_is_defined() -> None:
    def two_groups(*, size: Size, other: Size) -> None: ...

    def option_and_group(*, width: int, size: Size) -> None: ...

    for wrong in (two_groups, option_and_group):
        with pytest.raises(ValueError, match="duplicate parameter name: 'width'"):
            grouped_options(wrong)


def test_a_group_is_keyword_only() -> None:
    def positional(size: Size) -> None: ...

    with pytest.raises(ValueError, match="the option group 'size' must be keyword-only"):
        grouped_options(positional)


def test_every_setting_of_an_architecture_is_a_merging_option() -> None:
    configs = [architecture.config_class for architecture in ARCHITECTURES.values()]
    settings = {name.removeprefix(PREFIX) for config in configs for name in config.token_merging_fields}
    settings = settings - {"restore"} | {"preset"}  # classifiers do not read the one; the other stands for all
    assert {field.name for field in fields(MergingOptions)} == settings


def test_merging_options_come_to_the_settings_that_were_given() -> None:
    assert MergingOptions().settings() == {}
    assert MergingOptions(r="0.1", schedule="-1", scope="frame", proportional_attention=False).settings() == {
        "r": 0.1,
        "schedule": -1.0,
        "scope": "frame",
        "proportional_attention": False,
    }
