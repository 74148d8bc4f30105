"""Texts of somebody else: nothing of a secret is left in them, wherever they were cut."""

from __future__ import annotations

import json
import string
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analytics_assets.segment.foreign_text import foreign_text, root_message

pytestmark = pytest.mark.unit
TOKEN = "sgp-Zk3vQ9xT7mB1nW5cR8yL2pD6hJ4fS0aG"
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
WRITTEN = [
    lambda secret: secret,
    quote,
    quote_plus,
    lambda secret: quote(secret, safe=""),
    lambda secret: json.dumps(secret)[1:-1],
    lambda secret: repr(secret)[1:-1],
]


def pieces(secret: str, length: int = 8) -> set[str]:
    """Return every part of a secret that is ``length`` characters long."""
    return {secret[n : n + length] for n in range(len(secret) - length + 1)}


@given(
    before=PRINTABLE,
    secret=st.text(string.printable, min_size=8, max_size=50),
    after=PRINTABLE,
    written=st.sampled_from(WRITTEN),
    cut=st.integers(0, 200),
)
@example(before="bad token ", secret=TOKEN, after="", written=WRITTEN[0], cut=10 + len(TOKEN) - 1)
@example(before="", secret="p@ss word/1", after=" x", written=WRITTEN[1], cut=9)
def test_no_secret_survives_a_cut(
    before: str, secret: str, after: str, written: object, cut: int
) -> None:
    """Prevents that a secret is logged because whoever quotes it cut it in two."""
    form = written(secret)  # type: ignore[operator]
    text = f"{before}{form}{after}"[:cut]
    left = foreign_text(text, [secret], 1000)
    begin = form[: max(cut - len(before), 0)].strip()
    if len(begin) >= 8 and begin.split() == [begin] and begin not in before:
        assert begin not in left
    if len(secret.strip()) >= 8 and secret not in before + after:
        assert secret not in left


@given(st.integers(0, len(TOKEN) - 8), st.integers(8, len(TOKEN)), PRINTABLE, PRINTABLE)
def test_no_part_of_a_token_survives(start: int, length: int, before: str, after: str) -> None:
    """Prevents that most of a token is logged, whichever part of it is quoted, and where."""
    part = TOKEN[start : start + length]
    left = foreign_text(f"{before} {part} {after}", [TOKEN], 1000)
    assert not any(piece in left for piece in pieces(TOKEN))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("cannot reach postgresql+psycopg2://u:PW-geheim@h/db", "PW-geheim"),
        ("postgres://loader:p@ss@word@db.example.com/x refused", "ss@word"),
        ("postgres://loader:p/ss?w#d@db.example.com/x refused", "ss?w"),
        ("connection to host=h user=u password=geheim dbname=x failed", "geheim"),
        ("password='two words' is wrong", "two words"),
        ("Server=h;Uid=sa;Pwd=geheim;", "geheim"),
        ("sent Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("Failing row contains (1, Ada, ada@example.com).\nmore", "Ada"),
        ("DETAIL:  Key (email)=(ada@example.com) already exists.", "ada@"),
        ("[parameters: ('Ada', 'x')]", "Ada"),
        ("no mail to ada.b+c@mail.example.com, sorry", "ada.b+c"),
        ('Duplicate key "name: Ada" violates', "Ada"),
    ],
)
def test_what_nobody_named_is_masked_by_its_shape(text: str, secret: str) -> None:
    """Prevents that a password or a person is logged because no setting holds them."""
    left = foreign_text(text)
    assert secret not in left
    assert "***" in left


def test_the_text_is_one_clean_line() -> None:
    """Prevents that a text of the API clears a terminal, forges a line of the log or hides."""
    text = "a\x1b[2J\x1b]0;title\x07b\r\n2024 ERROR forged\x00\u202ec\u2028d\x9b31me\ud800"
    assert foreign_text(text) == "ab 2024 ERROR forged c de\ufffd"
    assert foreign_text("x" * 1000, limit=20) == "x" * 20
    assert foreign_text(f"{TOKEN[:12]}\x1b[0m{TOKEN[12:]}", [TOKEN]) == "***"
    assert foreign_text("a plain sentence: 3 of 4 rows, see the docs.") == (
        "a plain sentence: 3 of 4 rows, see the docs."
    )


def test_masking_comes_before_cutting() -> None:
    """Prevents that the limit cuts a secret, so that it is not known any more."""
    assert foreign_text(f"token {TOKEN}", TOKEN) == "token ***"  # one secret alone will do
    for limit in range(60):
        left = foreign_text(f"the token {TOKEN} is not known here", [TOKEN], limit)
        assert len(left) <= limit
        assert not any(piece in left for piece in pieces(TOKEN, 4))


def test_words_stay_readable() -> None:
    """Prevents that a password that is a word blacks out the message it stands in."""
    told = "password authentication failed for user loader"
    assert foreign_text(told, ["password-of-postgres", "abc"]) == told


def test_the_innermost_message_is_fit_for_a_log() -> None:
    """Prevents that the message of a driver is logged as it is."""
    inner = OSError("no route to postgres://u:geheim@h/db\nDETAIL: x")
    outer = ValueError("outer")
    outer.__cause__ = inner
    assert root_message(outer) == "no route to postgres://***@h/db DETAIL: x"


@pytest.mark.parametrize(
    "piece", ["a@", "\x1b[", "\x1b]", "Key (a)=(", TOKEN[:8], "://u:p@", "a.b@c.d"]
)
def test_a_long_text_is_quick(piece: str) -> None:
    """Prevents that an answer of a megabyte stops a run while its error is written."""
    begun = time.process_time()
    foreign_text(piece * (1_000_000 // len(piece)), [TOKEN])
    assert time.process_time() - begun < 5


def test_errors_that_go_round_in_a_circle_come_to_an_end() -> None:
    """Prevents that a run hangs over an error which was raised again while it was handled."""
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert root_message(first) == "second"
