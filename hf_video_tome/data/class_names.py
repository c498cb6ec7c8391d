"""Names of classes that are spelled in different ways: which of them mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

# Unicode counts them among punctuation, but they tell names apart, as in "C#" and "50%".
_SYMBOLS = frozenset("#%&*@§¶†‡‰‱′″‴※٪\uff03\uff05\uff06\uff0a\uff20")
_SEPARATORS = frozenset(("Pc", "Ps", "Pe", "Pi", "Pf", "Po"))


def exact_spelling(name: str) -> str:
    """Returns a name in Unicode's normal form NFC: macOS writes "é" in file names as two characters.

    Args:
        name: The name.
    """
    return unicodedata.normalize("NFC", name)


def without_case(name: str) -> str:
    """Returns a name in one case, with spaces for underscores.

    Args:
        name: The name.
    """
    folded = unicodedata.normalize("NFC", exact_spelling(name).casefold())
    return " ".join(folded.replace("_", " ").split()) or exact_spelling(name)


def without_punctuation(name: str) -> str:
    """Returns the same without brackets, quotes, full stops and the like; vowel signs, emoji and "+" are none.

    A hyphen goes where it joins two words, but "volume-" is not "volume".

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
    """Says if a character is punctuation that is not heard."""
    category = unicodedata.category(character)
    if category == "Pd":
        return (_in_word(before) and _in_word(after)) or (before == after == " ")
    return category in _SEPARATORS and character not in _SYMBOLS


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


SPELLINGS: tuple[Callable[[str], str], ...] = (exact_spelling, without_case, without_punctuation)
"""Ways to spell a name, each less strict than the one before."""


def match_names(names: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """Finds, for each name, the one among others that means the same.

    Names are compared as they are, then without case, then without punctuation (`SPELLINGS`). A looser spelling counts
    only where a single name of each side has it, so that no two of either side are ever taken for the same.

    Args:
        names: The names.
        others: What they are to be found among; empty ones are no names.

    Returns:
        For each name the position of the other one, None where there is none or it is not clear which.

    Examples:
        >>> match_names(["Riding_a bike", "volume-"], ["riding a bike", "volume+"])
        [0, None]
    """
    found: list[int | None] = [None] * len(names)
    for spelling in SPELLINGS:
        left, right = positions_by_spelling(names, spelling), positions_by_spelling(others, spelling)
        for text, places in left.items():
            if len(places) == len(right.get(text, ())) == 1 and found[places[0]] is None:
                found[places[0]] = right[text][0]
    return found


def positions_by_spelling(names: Sequence[str], spelling: Callable[[str], str]) -> dict[str, list[int]]:
    """Returns for each spelling the positions of the names that have it; empty names have none.

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
    """Returns the numbers that all of these names are, as those of folders `0` to `11`; None if one is no number.

    Args:
        names: The names.

    Examples:
        >>> class_numbers(["0", "1", "10", "2"]), class_numbers(["1", "run"])
        ([0, 1, 10, 2], None)
    """
    if not all(re.fullmatch("[0-9]{1,18}", name) for name in names):
        return None
    return [int(name) for name in names]
