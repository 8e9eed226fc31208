"""Detects broken replies: empty, looping, garbled, or in another script than the question.

The checks use the form of the text only, never its meaning, so a refusal that loops counts as broken too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SCAN_CHARACTERS = 4000
"""Number of characters of a reply that are checked; replies have at most a few hundred tokens."""

_LONG_WORD = 20
_SYMBOL = re.compile(r"[^\w\s]")
_NON_LATIN = re.compile(r"[\u0370-\u1dff\u2c80-\ua6ff\ua800-\uaaff\uac00-\ufaff\ufb1d-\ufdff\ufe70-\ufeff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_WORD = re.compile(r"[a-z\u00c0-\u024f']+")
_REPEATED_TAIL = 3


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FRAGMENTS = _words("a an and as at but for i in is it of on or so that the this to with you")
_ENGLISH = _words(
    "a about an and are as at be been but by can do for from has have he her his how i if in into is it its may more "
    "no not of on one or our should so some such than that the their them there these they this to was we were what "
    "when which who will with would you your can't don't i'm it's you're"
)
_EUROPEAN = _words(  # function words of Spanish, Portuguese, French, Italian, German and Dutch that English lacks
    "el la los las una por para que como pero está es más del le les des est une pour dans avec vous pas sur je ne il "
    "di che non sono della un ich nicht und der die das ist ein eine zu mit sie auf aber es mir dir het een voor não "
    "um uma com os lo se siento puedo peux ik niet maar de en et du mais con per al su da"
)


TAIL_WORDS = 120
"""Number of words at the end of a reply in which loops are searched; a loop continues to the end."""

SAMPLE_CHARACTERS = 600
"""Number of characters that decide whether a reply is prose."""


class Fault(NamedTuple):
    """A fault of a reply.

    Attributes:
        category: `empty`, `fragment`, `loop`, `script`, `symbols`, `gibberish` or `language`.
        reason: description of the fault.
        readable: True when the text may be correct, but in a language that the phrases guard cannot judge.
    """

    category: str
    reason: str
    readable: bool = False


def find_fault(prompt: str, response: str) -> Fault | None:
    """The fault of `response`, or None for text that looks like an English answer.

    A reply that is cut off in mid-sentence is not broken.

    Args:
        prompt: the question; its script is the script that the reply should have.
        response: the reply as generated.
    """
    text = response.strip()[:SCAN_CHARACTERS]
    if not any(map(str.isalnum, text)):
        return Fault("empty", "no words")
    words = text.lower().split()
    return _fragment(words) or _loop(words) or _script(prompt, text) or _garbled(text[:SAMPLE_CHARACTERS])


def _fragment(words: list[str]) -> Fault | None:
    if len(words) <= 2 and all(word in _FRAGMENTS for word in words):
        return Fault("fragment", f"only '{' '.join(words)}'")
    return None


def _loop(words: list[str]) -> Fault | None:
    longest = max(words, key=len)
    if len(longest) >= _LONG_WORD and longest.isalnum() and len(set(longest)) <= 3:
        return Fault("loop", f"'{longest[:3]}' over and over")
    if phrase := _repeated_tail(words) or _repeated_tail(words[:-1]):  # the last word may be cut off
        return Fault("loop", f"'{phrase}' over and over")
    if len(words) < 40:
        return None
    words = words[-TAIL_WORDS:]
    grams = set(zip(words, words[1:], words[2:], words[3:], strict=False))
    share = len(grams) / (len(words) - 3)
    return Fault("loop", f"{1 - share:.0%} of four-word phrases are repeats") if share < 0.4 else None


def _repeated_tail(words: list[str]) -> str:
    """The phrase that repeats at the end of a reply, at least three times (six times if shorter than four words).

    Words are compared with those one period earlier, so the last occurrence may be incomplete.
    """
    for period in range(1, min(60, len(words) // _REPEATED_TAIL) + 1):
        if words[-1] != words[-1 - period]:
            continue
        matched = 0
        for late, early in zip(reversed(words), reversed(words[:-period]), strict=False):
            if late != early:
                break
            matched += 1
        needed = period * (_REPEATED_TAIL - 1 if period >= 4 else 5)
        if matched >= needed:
            return " ".join(words[-period:][:8])
    return ""


def _script(prompt: str, text: str) -> Fault | None:
    if text.isascii():
        return None
    foreign, latin = len(_NON_LATIN.findall(text)), len(_LATIN.findall(text))
    if foreign <= latin:
        return None
    if len(_NON_LATIN.findall(prompt)) > len(_LATIN.findall(prompt)):
        return Fault(
            "language", "prompt and reply are not in English, the only language of the phrases guard", readable=True
        )
    return Fault("script", "the reply is not in the script of the prompt")


def _garbled(text: str) -> Fault | None:
    words = text.lower().split()
    if len(text) >= 40 and "```" not in text and len(_SYMBOL.findall(text)) > 0.65 * sum(map(len, words)):
        return Fault("symbols", "mostly symbols")
    english = sum(map(_ENGLISH.__contains__, words))
    if len(words) < 4 or english * 6 > len(words):
        return None
    european = sum(map(_EUROPEAN.__contains__, _WORD.findall(text.lower())))
    if european >= 3 and european > english and (len(words) >= 8 or european * 2 >= len(words)):
        return Fault("language", "the reply is not in English, the only language of the phrases guard", readable=True)
    listed = text.count("\n") + text.count(",") + text.count(".") + text.count("`")
    if len(words) >= 20 and english == 0 and listed < len(words) / 8:
        return Fault("gibberish", f"no English function word among {len(words)} words")
    return None
