"""Matching of class names across spellings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

# Punctuation for Unicode, but it distinguishes names, as in "C#" and "50%".
_SYMBOLS = frozenset("#%&*@§¶†‡‰‱′″‴※٪\uff03\uff05\uff06\uff0a\uff20")
_SEPARATORS = frozenset(("Pc", "Ps", "Pe", "Pi", "Pf", "Po"))


def exact_spelling(name: str) -> str:
    """Returns a name in Unicode's normal form NFC: macOS writes "é" in file names as two characters.

    Args:
        name: The name.
    """
    return unicodedata.normalize("NFC", name)


def without_case(name: str) -> str:
    """Returns a name case-folded, with spaces for underscores.

    Args:
        name: The name.
    """
    folded = unicodedata.normalize("NFC", exact_spelling(name).casefold())
    return " ".join(folded.replace("_", " ").split()) or exact_spelling(name)


def without_punctuation(name: str) -> str:
    """Returns a name case-folded and without punctuation such as brackets, quotes and full stops.

    Vowel signs, emoji and "+" are kept. A hyphen is removed where it joins two words, but "volume-" is not "volume".

    Args:
        name: The name.

    Examples:
        >>> without_punctuation("Pushing [something] off"), without_punctuation("hand-washing")
        ('pushing something off', 'hand washing')
        >>> without_punctuation("volume-"), without_punctuation("C++")
        ('volume-', 'c++')
    """
    folded = without_case(name)
    padded = f" {folded} "
    kept = [
        " " if _separates(character, padded[index], padded[index + 2]) else character
        for index, character in enumerate(folded)
    ]
    return " ".join("".join(kept).split()) or folded


def _separates(character: str, before: str, after: str) -> bool:
    """Returns whether a character only separates words."""
    category = unicodedata.category(character)
    if category == "Pd":
        return (_in_word(before) and _in_word(after)) or (before == after == " ")
    return category in _SEPARATORS and character not in _SYMBOLS


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


SPELLINGS: tuple[Callable[[str], str], ...] = (exact_spelling, without_case, without_punctuation)
"""Normal forms of a name, from strict to loose."""


def match_names(names: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """Matches each name with the equivalent name in another list.

    Names are compared as they are, then without case, then without punctuation (`SPELLINGS`). A looser spelling counts
    only if exactly one name on each side has it, so that two names of one side never match the same name.

    Args:
        names: The names.
        others: The names to match with; empty ones are ignored.

    Returns:
        For each name the position of its match; None if there is none or if it is ambiguous.

    Examples:
        >>> match_names(["Riding_a bike", "volume-"], ["riding a bike", "volume+"])
        [0, None]
    """
    found: list[int | None] = [None] * len(names)
    for spelling in SPELLINGS:
        left, right = positions_by_spelling(names, spelling), positions_by_spelling(others, spelling)
        for text, positions in left.items():
            if len(positions) == len(right.get(text, ())) == 1 and found[positions[0]] is None:
                found[positions[0]] = right[text][0]
    return found


def positions_by_spelling(names: Sequence[str], spelling: Callable[[str], str]) -> dict[str, list[int]]:
    """Returns the positions of the names by spelling; empty names are ignored.

    Args:
        names: The names.
        spelling: One of `SPELLINGS`.
    """
    positions: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        if name:
            positions.setdefault(spelling(name), []).append(position)
    return positions


def class_numbers(names: Sequence[str]) -> list[int] | None:
    """Returns class names as numbers, such as those of folders `0` to `11`; None if any is not a number.

    Args:
        names: The names.

    Examples:
        >>> class_numbers(["0", "1", "10", "2"]), class_numbers(["1", "run"])
        ([0, 1, 10, 2], None)
    """
    if not all(re.fullmatch("[0-9]{1,18}", name) for name in names):
        return None
    return [int(name) for name in names]
