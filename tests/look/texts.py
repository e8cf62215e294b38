"""Texts that spreadsheets stumble over, and ten thousand made of them by a seed."""

from __future__ import annotations

import random

HOSTILE = (
    *(
        "=1+1",
        '=HYPERLINK("http://x.example";"y")',
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "=cmd|' /C calc'!A0",
    ),
    *("＝1", "＋1", "－1", "＠x", '=DDE("soffice";"a";"b")', " =1", "\u00a0=1", "\ufeff=1", "\u200b=1", "  +1", "{=1}"),
    *("'", "''", "'=1", "-", "=", "%", "|", "\x00=1", "\x01", "\x1f"),
)
"""What some program runs, or has run, when a cell begins so."""

MISTAKEN = (
    *(
        "00123",
        "0042",
        "1e5",
        "2026-11-22",
        "1/2",
        "TRUE",
        "12:30",
        "1,5",
        "1.5",
        "$1",
        "€5",
        "#REF!",
        "1E400",
        "-0",
        "+49 30 1",
    ),
    *("", " ", "  a  ", "\t", '"', '""', ",", ";", "a\r\nb", "a\nb", "a\rb", "\n\r", "a;b,c"),
    *("_x0041_", "loan_x1_2", "_xa\x15", "<r>x</r>", "</t>", "&amp;", "]]>", "http://x.example", "a@b.example", "\\n"),
    *(
        "\ufffe",
        "\uffff",
        "\U0001f600",
        "\u202e",
        "\u0627\u0644",
        "\u6c49",
        "e\u0301",
        "x" * 33_000,
        "=" + "y" * 33_000,
    ),
    "\U0001f600" * 17_000,
)
"""What a program may take for a number, a date, a formula's error, an escape or the end of a cell, and what is too long for one."""


def fuzzed(number: int, seed: int) -> list[str]:
    """Every text above, and others made of them and of any characters, `number` in all; the same for the same seed."""
    chance = random.Random(seed)
    pieces = [text for text in (*HOSTILE, *MISTAKEN) if len(text) < 100] + list("ab0 9;,\"'\n\t\\&<>ßé\u05d0")
    texts = [*HOSTILE, *MISTAKEN]
    while len(texts) < number:
        if chance.random() < 0.5:
            texts.append("".join(chance.choices(pieces, k=chance.randint(1, 6))))
        else:
            texts.append("".join(chr(_character(chance)) for _ in range(chance.randint(1, 12))))
    return texts


def _character(chance: random.Random) -> int:
    """Any character that UTF-8 can carry, every third one of ASCII."""
    low, high = chance.choice(((0, 0x7F), (0, 0xD7FF), (0xE000, 0x10FFFF)))
    return chance.randint(low, high)
