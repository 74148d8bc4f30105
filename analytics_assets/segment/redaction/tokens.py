"""Credentials that are known by how they begin, as the companies that issue them publish it.

The sources are the vendors' own pages on token formats and the rules that public secret scanners
share. Only what opens something is listed: a publishable key (``pk_live_``) is none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

Span = tuple[int, int]

_STARTS: Final = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"LTAI[A-Za-z0-9]{20}",
    r"AKID[A-Za-z0-9]{32}",
    r"AIza[\w-]{30}",
    r"ya29\.[\w-]{20}",
    r"1//0[\w-]{30}",
    r"GOCSPX-[\w-]{20}",
    r"gh[pousr]_[A-Za-z0-9]{30}",
    r"github_pat_\w{20}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas|ffct)-[\w-]{16}",
    r"xox[a-z]-[\w-]{10}",
    r"xapp-\d-[\w-]{10}",
    r"(?:sk|rk)_(?:live|test|prod)_\w{10}",
    r"(?:whsec|rzp_live|rzp_test)_[\w+/=-]{12}",
    r"sk-[\w-]{18}",
    r"SG\.[\w-]{16,64}\.[\w-]{16}",
    r"key-[0-9a-f]{32}",
    r"[0-9a-f]{32}-us\d",
    r"shp(?:at|ca|pa|ss|tka|ua)_[0-9a-fA-F]{32}",
    r"do[opr]_v1_[0-9a-f]{32}",
    r"npm_[A-Za-z0-9]{30}",
    r"pypi-[\w-]{16}",
    r"rubygems_[0-9a-f]{32}",
    r"pat-(?:na|eu|ap)\d-[0-9a-f-]{30}",
    r"pat[A-Za-z0-9]{14}\.[0-9a-f]{32}",
    r"sq0(?:atp|csp|idp)-[\w-]{20}",
    r"EAA[A-Za-z0-9]{40}",
    r"NR(?:AK|II|JS|AA|RA|SP)-[A-Za-z0-9-]{16}",
    r"dapi[0-9a-f]{32}",
    r"hv[bsr]\.[\w-]{20}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{20}",
    r"(?:lin_api|lin_oauth|secret|ntn)_[A-Za-z0-9]{32}",
    r"fig[doh]_[\w-]{20}",
    r"PMAK-[0-9a-f]{20}",
    r"AT(?:ATT|CTT|BB)3?[\w=-]{20}",
    r"sl\.[\w-]{40}",
    r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27}",
    r"\d{8,10}:AA[\w-]{30}",
    r"gl(?:c|sa)_[\w+/=]{20}",
    r"sntry[su]_[\w+/=-]{20}",
    r"sb(?:p|_secret)_\w{20}",
    r"pscale_(?:tkn|oauth|pw)_[\w.-]{16}",
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.]{20}",
    r"HRKU-[\w-]{20}",
    r"\w{3}8Q~[\w.~-]{30}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{20}",
    r"sgp_[A-Za-z0-9]{20}",
    r"access-(?:sandbox|development|production)-[0-9a-f-]{30}",
    r"(?:hf|r8|gsk|nfp|rnd|tfp|fo1|aio|rdme|pnu|FLWSECK|FLWSECK_TEST|bkua)[_-][\w-]{20}",
    r"(?:pplx|tskey|pul|xkeysib|xsmtpsib|CFPAT|CCIPAT|figo)-[\w-]{16}",
    r"dckr_(?:pat|oat)_[\w-]{20}",
    r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{20}",
    r"SK[0-9a-f]{32}(?![0-9a-f])",
    r"EZ[AT]K[A-Za-z0-9]{40}",
    r"(?:duffel|shippo|live|lob)_(?:live|test|pub)_[\w-]{20}",
    r"access_token\$(?:production|sandbox)\$[\w$]{20}",
    r"ops_eyJ[\w-]{40}",
    r"t1\.[\w-]{30,300}\.[\w-]{30}",
    r"AQVN[\w-]{30}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*){0,4}",
    r"[A-Za-z0-9+/]{86}==(?![A-Za-z0-9+/=])",
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_STARTS)})")
_REST = re.compile(r"[\w+/=~-]*(?:\.[\w+/=~-]+)*")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/])(?:LS0tLS1CRUdJTi|eyJ|eyA|ewog|ewok)[A-Za-z0-9+/\s]{40,}=*"
)
_END: Final = "-----END "


def token_spans(text: str) -> Iterator[Span]:
    """Find tokens of known vendors, JSON web tokens and private keys, in base64 as well."""
    yield from _known_tokens(text)
    if "-----BEGIN" in text:
        yield from _private_keys(text)
    if any(start in text for start in ("LS0t", "eyJ", "eyA", "ewo")):
        yield from _in_base64(text)


def _known_tokens(text: str) -> Iterator[Span]:
    place = 0
    while found := _TOKEN.search(text, place):
        rest = _REST.match(text, found.end())
        place = rest.end() if rest else found.end()
        yield found.start(), place


def _private_keys(text: str) -> Iterator[Span]:
    place = 0
    while found := _PRIVATE_KEY.search(text, place):
        end = text.find(_END, found.end())
        place = len(text) if end < 0 else text.find("-----", end + len(_END)) + 5
        if place < found.end():
            place = len(text)
        yield found.start(), place


def _in_base64(text: str) -> Iterator[Span]:
    """A key file that was encoded to pass as one line."""
    for found in _BASE64.finditer(text):
        plain = decoded(found.group())
        if b"PRIVATE KEY" in plain or b'"private_key' in plain or b"secret" in plain:
            yield found.span()


def decoded(text: str) -> bytes:
    """Decode base64 as far as it goes."""
    compact = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(compact[: len(compact) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""
