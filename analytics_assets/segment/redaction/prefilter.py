"""Find quickly which texts of a page may hold a credential; in most pages none does.

Judging a text takes some microseconds, typing one takes a tenth of one. So a column is looked at
as a whole first: without the signs that credentials come with, short texts hold none. What was
found harmless once is not looked at again: few people and kinds fill many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_TOKENS: Final = (
    r"A[BCKS][CI]A|LTAI|AKID|AIza|ya29|1//0|GOCSPX|gh[pousr]_|github_p|gl[a-z]+[-_]|xox[a-z]-|xapp-"
    r"|[rs]k_[lpt]|whsec_|rzp_|sk-|SG\.|key-|-us\d|shp[a-z]+_|do[opr]_v1|npm_|pypi-|rubygems_|pat"
    r"|sq0|EAA|NR[A-Z][A-Z]-|dapi|hv[bsr]\.|atlasv1|lin_|secret_|ntn_|fig[doh]_|PMAK"
    r"|AT[ACB][TB]|sl\.|\.[\w-]{6}\.|:AA|sntry|sbp_|sb_|pscale|dp\.|HRKU|8Q~|AGE-|sgp_"
    r"|access|hf_|r8_|gsk_|nfp_|rnd_|tfp_|fo1_|aio_|rdme_|pnu_|FLWSECK|bkua_"
    r"|pplx-|tskey-|pul-|xkeysib|xsmtpsib|CFPAT|CCIPAT|figo-|dckr_|dt0|SK[0-9a-f]|EZ[AT]K"
    r"|duffel|shippo|live_|lob_|ops_|t1\.|AQVN|eyJ|eyA|ewo|LS0t|==|BEGIN"
)
"""Matches wherever a token of :mod:`.tokens` begins, and elsewhere; Arrow's expressions are fast
only if they are simple, and are compiled on each call."""
_SIGNS: Final = (b"=", b":", b"'", b'"', b"<")
_SCHEMES: Final = (
    b"bearer ",
    b"basic ",
    b"token ",
    b"apikey ",
    b"ssws ",
    b"digest ",
    b"negotiate ",
    b"login ",
)
_JOINTS: Final = (b"-", b"_", b".", b"+", b"/", b"~", b"$")
_SHORTEST: Final = 6
_SHORTEST_TOKEN: Final = 20
_SHORTEST_JOINT_TOKEN: Final = 24
_SHORTEST_PLAIN_TOKEN: Final = 34
_FEW: Final = 4
_REMEMBERED: Final = 10_000


class Prefilter:
    """Judges the pages of one column; remembers some of the texts that it found harmless."""

    def __init__(self, replace: Callable[[str], str]) -> None:
        """Take what replaces the credentials in a text."""
        self._replace = replace
        self._harmless: set[str | None] = {None}

    def replaced(self, texts: pa.Array) -> Mapping[str, str]:
        """Return the texts of an array that hold a credential, and what is to be stored instead."""
        longest = pc.max(pc.binary_length(texts)).as_py() or 0
        if longest < _SHORTEST:
            return {}
        raw = texts.buffers()[2].to_pybytes()
        if longest < _SHORTEST_TOKEN and not _has_signs(raw):
            return {}
        distinct = texts.unique()
        few = len(distinct) * _FEW < len(texts)
        if not few and not _has_signs(raw):
            if not _may_be_token(raw, longest):
                return {}
            distinct = distinct.filter(pc.match_substring_regex(distinct, _TOKENS))
        return self._judged(distinct.to_pylist())

    def _judged(self, texts: Sequence[str]) -> dict[str, str]:
        fresh = [text for text in texts if text not in self._harmless]
        judged = {text: self._replace(text) for text in fresh}
        changed = {text: other for text, other in judged.items() if text != other}
        if len(self._harmless) < _REMEMBERED:
            self._harmless.update(judged.keys() - changed.keys())
        return changed


def _has_signs(raw: bytes) -> bool:
    if any(sign in raw for sign in _SIGNS):
        return True
    if b"@" in raw and b"@/" in raw:
        return True
    if b" " not in raw:
        return False
    if b"-" in raw and (b"--" in raw or b"-u " in raw):
        return True
    lower = raw.lower()
    return any(scheme in lower for scheme in _SCHEMES)


def _may_be_token(raw: bytes, longest: int) -> bool:
    if longest >= _SHORTEST_JOINT_TOKEN and any(joint in raw for joint in _JOINTS):
        return True
    if longest >= _SHORTEST_PLAIN_TOKEN:
        return True
    return longest >= _SHORTEST_TOKEN and (b"AKIA" in raw or b"ASIA" in raw)
