"""Keep secrets out of everything that is stored.

:class:`Redactor` replaces them; :mod:`~analytics_assets.segment.redaction.fingerprints` says by
what. A column says in ``endpoints.py`` how it is judged: by the keys of its settings and by shape,
or by shape only.
"""

from analytics_assets.segment.redaction.keys import Meaning, looks_like_credential, meaning
from analytics_assets.segment.redaction.redactor import Redactor

__all__ = ["Meaning", "Redactor", "looks_like_credential", "meaning"]
