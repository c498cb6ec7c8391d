"""An option that takes one value is given once, in every command."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from hf_video_tome.cli import app, run
from hf_video_tome.cli.common import InputError


def commands() -> dict[str, Any]:
    """Every command by its words."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        parts = getattr(command, "commands", {})
        found |= {f"{name} {part}": inner for part, inner in parts.items()} or {name: command}
    return found


COMMANDS = commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_takes_one_value_is_refused_twice(name: str) -> None:
    refused = []
    for parameter in COMMANDS[name].params:
        once = parameter.param_type_name == "option" and not parameter.multiple
        if not once or (parameter.is_flag and not parameter.secondary_opts):  # a flag says the same however often
            continue
        option, other = parameter.opts[0], (*parameter.secondary_opts, *parameter.opts)[0]
        value = [] if parameter.is_flag else ["8"]
        with pytest.raises(InputError, match=f"^{max(parameter.opts, key=len)}.* must be given once, got it 2 times$"):
            COMMANDS[name].make_context(name, [option, *value, other, *value])
        refused.append(option)
    assert len(refused) > 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["evaluate", "m", "--dataset", "moving-digits", "--mode", "merge", "--mode=drop"],
            "--mode must be given once",
        ),
        (["classify", "a.mp4", "-r", "8", "--r", "9", "--r=8"], "--r must be given once, got it 3 times"),
        (
            ["benchmark", "vivit", "--memory", "--no-memory"],
            "--memory/--no-memory must be given once, got it 2 times",
        ),
        (
            ["evaluate", "m", "--dataset", "moving-digits", *["--data-option", "num_test=1"] * 2],
            "--data-option must be given once for num_test, got '1' and '1'",
        ),
        (
            ["benchmark", "vivit", "--config-option", "num_frames=8", "--config-option", "num_frames=16"],
            "--config-option must be given once for num_frames, got '8' and '16'",
        ),
    ],
)
def test_what_is_given_twice_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert message in capsys.readouterr().err


def test_flags_may_be_repeated_and_so_may_options_that_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "nowhere", "--dataset", "imagenet", "--r", "1", "-r", "2", "--json", "--json"]) == 2
    assert "--dataset: " in capsys.readouterr().err
