"""Find the credentials in a text by their shape, and put something else in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from analytics_assets.segment.redaction.addresses import address_spans
from analytics_assets.segment.redaction.assignments import assignment_spans
from analytics_assets.segment.redaction.tokens import Span, token_spans

SHORTEST = 6
_REMEMBERED = 300


def replace_credentials(
    text: str, replacement: Callable[[str], str], *, webhook: bool = False
) -> str:
    """Replace each credential in ``text``; the time it takes grows with the length alone.

    Args:
        text: any text.
        replacement: what to put in place of a credential.
        webhook: whether the text is known to be the address of a webhook.
    """
    if len(text) < SHORTEST:
        return text
    find = _remembered_spans if len(text) <= _REMEMBERED else _spans
    spans = find(text, webhook)
    return replace_spans(text, spans, replacement) if spans else text


def replace_spans(text: str, spans: Iterable[Span], replacement: Callable[[str], str]) -> str:
    """Replace parts of ``text``; the spans stand in order and apart."""
    parts = []
    place = 0
    for start, end in spans:
        parts += [text[place:start], replacement(text[start:end])]
        place = end
    return "".join([*parts, text[place:]])


def _spans(text: str, webhook: bool) -> tuple[Span, ...]:
    return merged(
        [
            *token_spans(text),
            *address_spans(text, webhook=webhook),
            *assignment_spans(text),
        ]
    )


_remembered_spans = lru_cache(maxsize=4096)(_spans)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sort spans and join those that overlap."""
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return tuple(joined)
