"""Long text in overlapping chunks, each short enough for the model to read whole."""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of a chunk, at most."""

OVERLAP = 100
"""Characters that a chunk repeats of the one before, about: a sentence across a cut is whole in one of them."""

TOKENS = 254
"""What the model reads of a text, apart from the marks at its ends."""

_PIECE = re.compile(r"([A-Za-z]+)|([0-9]+)|\S")
_WORD = re.compile(r"\s\S")

# From the best place to cut to the worst: paragraph, line, sentence, word.
_CUTS = [re.compile(pattern) for pattern in (r"\n\s*\n", r"\n", r"[.!?\u2026]['\")\]]*\s|[\u3002\uff01\uff1f]", r"\s")]


def split(text: str) -> list[str]:
    """Pieces of `text` in their order that together hold all of it; none when it is blank.

    A chunk ends at the best boundary in its second half, in the middle of a word only where there is no other.
    """
    chunks = []
    start = 0
    while start < len(text):
        end = _end(text, start)
        chunk = text[start:end]
        if chunk.strip():
            chunks.append(chunk)
        if end == len(text):
            break
        start = _next_start(text, start, end)
    return chunks


def estimate_tokens(text: str) -> int:
    """About how many tokens a model makes of the text, more often too many than too few."""
    return sum(-(-len(piece[0]) // _characters_a_token(piece)) for piece in _PIECE.finditer(text))


def _end(text: str, start: int) -> int:
    window = text[start : start + LONGEST]
    fits = _fitting(window)
    if start + fits == len(text):
        return len(text)
    for cut in _CUTS:
        ends = [match.end() for match in cut.finditer(window, fits // 2, fits)]
        if ends:
            return start + ends[-1]
    return start + fits


def _next_start(text: str, start: int, end: int) -> int:
    """Where the chunk after one from `start` to `end` begins: at a word, `OVERLAP` before `end` or a little later."""
    earliest = max(end - OVERLAP, (start + end) // 2)
    word = _WORD.search(text, earliest - 1, end)
    return word.end() - 1 if word else earliest


def _fitting(window: str) -> int:
    """How many characters of `window` the model reads, by an estimate that is more often too low than too high."""
    if len(window) <= TOKENS:
        return len(window)
    left = TOKENS
    for piece in _PIECE.finditer(window):
        a_token = _characters_a_token(piece)
        needed = -(-len(piece[0]) // a_token)
        if needed > left:
            return piece.start() + left * a_token
        left -= needed
    return len(window)


def _characters_a_token(piece: re.Match[str]) -> int:
    letters, digits = piece.groups()
    if letters:
        return 4
    return 2 if digits else 1
