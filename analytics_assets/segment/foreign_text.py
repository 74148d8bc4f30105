"""Words that were written by others, made fit for a message or a log."""

from __future__ import annotations

import json
from urllib.parse import quote


def foreign_text(text: str, *secrets: str, most: int = 300) -> str:
    """Return ``text`` on one line, without secrets and control characters, cut to ``most``.

    It is cut last: half a secret is none that could be found.
    """
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
            text = text.replace(form, "***")
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:most]
