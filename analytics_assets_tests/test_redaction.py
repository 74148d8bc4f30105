"""What is a secret and what is not, over a corpus of both, and what stands in its place."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import Column, Endpoint
from analytics_assets.segment.records import RowTyper
from analytics_assets.segment.redaction import Redactor, looks_like_credential

DATA = Path(__file__).parent / "data"
REDACTOR = Redactor()
KEY = "a key of the team's own"


def corpus(name: str) -> list[dict[str, Any]]:
    """Read ``redact`` and ``value`` of each case.

    Among secrets, ``«»`` say where they are, and ``‸`` keeps scanners of repositories quiet.
    """
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts(value: Any) -> Iterator[str]:
    """Walk the texts of a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def without_marks(value: Any) -> Any:
    """Return the value as it would be served."""
    return json.loads(re.sub("[«»‸]", "", json.dumps(value, ensure_ascii=False)))


def secrets_of(value: Any) -> list[str]:
    """Return the secrets that are marked in a value."""
    found = re.findall("«(.*?)»", "\0".join(texts(value)), re.DOTALL)
    return [secret.replace("‸", "") for secret in found]


def redacted(how: str, value: Any) -> Any:
    """Redact a value as a column does."""
    return REDACTOR.by_key(value) if how == "shape_and_key" else REDACTOR.by_shape(value)


SECRETS = corpus("secrets.jsonl")
INNOCENTS = corpus("innocents.jsonl")


@pytest.mark.unit
def test_the_corpus_is_large() -> None:
    """Prevents that cases are lost without anybody noticing."""
    assert min(len(SECRETS), len(INNOCENTS)) >= 200
    assert all(secrets_of(case["value"]) for case in SECRETS)


@pytest.mark.unit
@pytest.mark.parametrize("case", SECRETS, ids=lambda case: json.dumps(case["value"])[:60])
def test_no_secret_is_missed(case: dict[str, Any]) -> None:
    """Prevents that a secret, or eight characters of it, is stored in the clear."""
    value = without_marks(case["value"])
    masked = redacted(case["redact"], value)
    left = "\0".join(texts(masked))
    for secret in secrets_of(case["value"]):
        assert secret not in left
        assert not any(secret[n : n + 8] in left for n in range(len(secret) - 7))
    assert masked != value


@pytest.mark.unit
def test_few_innocents_are_replaced() -> None:
    """Prevents that settings become useless because everything is masked."""
    needless = [
        case["value"]
        for case in INNOCENTS
        if redacted(case["redact"], case["value"]) != case["value"]
    ]
    assert len(needless) <= 0.05 * len(INNOCENTS), needless


ANY = Endpoint(
    name="any",
    group="inventory",
    path="/any",
    data_selector="data.any",
    primary_key=("id",),
    description="",
    columns=(
        Column("id", "text", ""),
        Column("note", "text", ""),
        Column("rule", "json", "", redact="shape"),
        Column("settings", "json", "", redact="shape_and_key"),
    ),
    docs="",
)


@pytest.mark.unit
@pytest.mark.parametrize("together", [True, False])
def test_a_credential_in_any_text_column_is_replaced(together: bool) -> None:
    """Prevents that the quick look at a page passes a text that a close look would not."""
    cases = [c for c in SECRETS if c["redact"] == "shape"]
    notes = [text for c in cases for text in texts(c["value"])]
    rows = [
        {"id": str(n), "note": without_marks(note), "rule": {"then": without_marks(note)}}
        for n, note in enumerate(notes)
    ]
    if together:
        stored = RowTyper(ANY, {}).table(rows).to_pylist()
    else:
        stored = [RowTyper(ANY, {}).table([row]).to_pylist()[0] for row in rows]
    for note, row in zip(notes, stored, strict=True):
        for secret in secrets_of(note):
            assert secret not in row["note"]
            assert secret not in row["rule"]


@pytest.mark.unit
def test_texts_without_credentials_stay_as_they_are() -> None:
    """Prevents that the quick look changes a row, loses one, or mixes two up."""
    notes: list[str | None] = []
    for case in INNOCENTS:
        notes += texts(case["value"]) if case["redact"] == "shape" else ()
    notes = [*notes, None, "", "x" * 10_000, "user/" + "aB3" * 12]
    rows = [{"id": str(n), "note": note} for n, note in enumerate(notes)]
    typer = RowTyper(ANY, {})
    for _ in range(2):
        stored = typer.table(rows)["note"].to_pylist()
        changed = [a for a, b in zip(notes, stored, strict=True) if a != b]
        assert len(changed) <= 0.05 * len(notes), changed
        assert stored[-4:] == notes[-4:]


GUESSABLE = (
    "4711 123456 password Passw0rd! letmein hunter2 Summer2024! CorrectHorseBatteryStaple"
    " 1q2w3e4r5t6y7u8i9o0p 1qaz2wsx3edc4rfv5tgb6yhn7ujm 0123456789abcdef0123456789abcdef"
    " deadbeefdeadbeefdeadbeefdeadbeef Passw0rd1Passw0rd1Passw0rd1 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)


@pytest.mark.unit
@pytest.mark.parametrize(
    "secret", [*GUESSABLE.split(), "correct horse battery staple", 4711, 10**30]
)
def test_what_could_be_guessed_has_no_fingerprint(secret: Any) -> None:
    """Prevents that a PIN or a common password is found by trying what people choose."""
    assert REDACTOR.whole(secret) == "redacted"
    assert re.fullmatch("hmac:[0-9a-f]{12}", Redactor(KEY).whole(secret))


@pytest.mark.unit
@given(st.one_of(st.uuids().map(str), st.binary(min_size=20, max_size=40).map(bytes.hex)))
def test_a_long_random_secret_keeps_its_fingerprint(secret: str) -> None:
    """Prevents that tables which were loaded before change over, or that a rotation hides."""
    wanted = "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:12]
    stored = REDACTOR.whole(secret)
    assert stored in (wanted, "redacted")
    if len(set(secret)) > 12:
        assert stored == wanted


@pytest.mark.unit
def test_a_fingerprint_shows_a_rotation_and_nothing_else() -> None:
    """Prevents that two secrets look the same, one looks like two, or a key makes no difference."""
    old, new = "c41fa07e9d2b5583e60a7bd91f3c28e4", "7be05d1c94fa3826c0e97a5bd8f1643c"
    for redactor in (REDACTOR, Redactor(KEY)):
        assert redactor.whole(old) == redactor.whole(old) != redactor.whole(new)
        nested = {"a": [old, 1]}
        assert (
            redactor.whole(nested) == redactor.whole({"a": [old, 1]}) != redactor.whole({"a": old})
        )
    wanted = hmac.new(KEY.encode(), old.encode(), "sha256").hexdigest()[:12]
    assert Redactor(KEY).whole(old) == f"hmac:{wanted}"
    assert Redactor(KEY + "2").whole(old) != Redactor(KEY).whole(old)
    assert KEY not in repr(Redactor(KEY))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
PATHS = st.lists(st.sampled_from(["list", "options", "a", "Settings", "0"]), max_size=6)
_SPELLINGS = (
    "apiKey api-key API_KEY APIKey apikey api.key x-api-key accessToken access_token clientSecret"
    " secretAccessKey privateKeyPem Authorization passwd password dbpass userPwd passphrase"
    " writeKeys hashKey signingSecret webhook_secret connectionString credentials sasToken"
    " encryptionkey jwt sessionCookie"
)
SPELLINGS = _SPELLINGS.split()
_HARMLESS = (
    "monkey keyboard keyword turkey tokenizer secretary bypass author region name email enabled"
    " passenger id url description host port database username"
)


@pytest.mark.unit
@pytest.mark.parametrize("key", SPELLINGS)
def test_a_credential_is_known_by_any_spelling(key: str) -> None:
    """Prevents that a live key is stored because its name is spelled another way."""
    assert looks_like_credential(key)


@pytest.mark.unit
@pytest.mark.parametrize("key", _HARMLESS.split())
def test_ordinary_words_name_no_credential(key: str) -> None:
    """Prevents that settings become useless because everything is masked."""
    assert not looks_like_credential(key)


@pytest.mark.unit
@given(
    PATHS,
    st.sampled_from([s for s in SPELLINGS if s != "sessionCookie"]),
    st.text(string.ascii_letters + string.digits, min_size=8).map("9x".__add__),
)
def test_a_credential_is_masked_at_any_depth(path: list[str], key: str, secret: str) -> None:
    """Prevents that a secret survives because it is nested in objects and lists."""
    value: Any = {key: secret}
    for step in path:
        value = [value, 1] if step == "list" else {step: value, "other": "text"}
    assert secret not in json.dumps(REDACTOR.by_key(value))
    assert "hmac:" in json.dumps(Redactor(KEY).by_key(value))


@pytest.mark.unit
@given(JSON)
def test_redacting_takes_any_json(value: Any) -> None:
    """Prevents that odd JSON fails, or comes back with another shape."""
    for redact in (REDACTOR.by_key, REDACTOR.by_shape):
        masked = redact({"options": value, "plain": value})
        assert set(masked) == {"options", "plain"}
        assert type(masked["options"]) is type(value)
        if isinstance(value, (list, dict)):
            assert len(masked["options"]) == len(value)
    assert REDACTOR.by_key(3.5) == 3.5


SLOW = (
    "a", " ", "=", ":", "a=", "a:", "://", "@", "a:@", "://a:@", "a:1@b/", "-", "--a ", "a-", "_",
    ".", "eyJ", "eyJ.", "-----BEGIN PRIVATE KEY-----", "LS0t", "M-", "password=", 'password="',
    "token: '", "<a>", "<a ", "\\", '\\"', "'", "hmac(", "a/b@", "sk-", "x.y.", "1//0", "?a=b", "[",
    "/hook/", "{", "bearer ", "a: b ", "%", "AKIA", "A1b2", "token\n", "a.b@c.d:1", "ab:12:c:d:",
)  # fmt: skip


@pytest.mark.parametrize("piece", SLOW)
def test_a_long_text_takes_no_longer_than_its_length(piece: str) -> None:
    """Prevents that a text of a megabyte stops a load: every search is linear."""
    short, long = (seconds_to_redact((piece * size)[:size]) for size in (250_000, 1_000_000))
    assert long < 8 * short + 0.5  # four times the text; sixteen times the work if it were squared


def seconds_to_redact(text: str) -> float:
    """Return the seconds of CPU that a text takes."""
    begun = time.process_time()
    REDACTOR.by_shape(text)
    REDACTOR.by_key({"other": text}, "settings")
    return time.process_time() - begun


@pytest.mark.unit
def test_deep_nesting_inside_a_text_is_not_stored_unread() -> None:
    """Prevents that a secret passes because the JSON around it is nested too deeply to judge."""
    for depth in (10, 500, 900, 5000):
        inner = '{"a":' * depth + '{"password":"s3cr3t-s3cr3t"}' + "}" * depth
        try:
            masked = REDACTOR.by_key({"config": inner})
        except RecursionError:
            continue  # the asset fails, and says so
        assert "s3cr3t" not in masked["config"], depth


@pytest.mark.unit
def test_an_undeclared_credential_is_redacted_as_a_whole() -> None:
    """Prevents that a field which the API added yesterday is stored in the clear."""
    row = {
        "id": "a",
        "apiKey": 4711,
        "sessionTimeout": 30,
        "newToken": {"a": ["s3cr3t"]},
        "url": "x",
    }
    typer = RowTyper(BY_NAME["spaces"], {})
    stored = typer.undeclared.finished(typer.table([row])).to_pylist()[0]
    assert stored["api_key"] == "redacted"
    assert stored["session_timeout"] == 30
    assert "s3cr3t" not in stored["new_token"]
    assert stored["url"] == "x"
