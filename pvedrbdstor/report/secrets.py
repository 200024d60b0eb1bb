"""Take secrets out of texts. No I/O here.

Two ways at once. Where a word says that a secret follows, that is taken out, in whichever text. And what was found so is taken out of all texts
of the archive, also where no word says what it is, such as a line of a log that repeats it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

LEFT_OUT = "(left out)"
_SHORTEST = 6
"""Of a secret that is looked for everywhere: shorter ones are taken out only where a word says what they are, as `abc` is in many words."""

_WORD = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passphrase|secret|api[_-]?key|private[_-]?key|master[_-]?pubkey|encryption[_-]?key|keyring|token[_-]?(?:id|value|secret)"
    r"|credentials?|community)[\w.-]*)"
)
_QUOTED = r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_AFTER_WORD = re.compile(
    rf"(?P<word>(?<![\w.]){_WORD}[\"']?)(?P<between>\s*[=:]\s*|[ \t]+|\s+(?=[\"']))(?P<secret>{_QUOTED}|[^\s;,}}]+)",
    re.IGNORECASE,
)
"""drbd.conf(5) lets a value stand on the line below its name."""
_KEY_LINE = re.compile(
    r"^(?P<word>[ \t]*(?:key|authkey|pre-?shared-?key))(?P<between>[ \t]*[:=][ \t]*|[ \t]+)(?P<secret>\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_URL = re.compile(r"(?P<word>\b[a-z][a-z0-9+.-]*://[^\s/:@]*)(?P<between>:)(?P<secret>[^\s/]+)(?=@)", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"(?P<word>\b(?:authorization|cookie|set-cookie|CSRFPreventionToken|PVEAuthCookie|PVEAPIToken))(?P<between>\s*[=:]\s*)(?P<secret>[^\n]+)",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?P<word>(?<![\w.+-])[\w.+-]{1,64}@[\w.-]{1,64}![\w.-]{1,64})(?P<between>[=: ])(?P<secret>[0-9a-f]{8}-[0-9a-f-]{27})",
    re.IGNORECASE,
)
"""Proxmox's API tokens, `USER@REALM!NAME=UUID`, also without a word before them."""
_URL_TOKEN = re.compile(r"(?P<word>\b[a-z][a-z0-9+.-]*:)(?P<between>//)(?P<secret>[^\s/:@]{16,})(?=@)", re.IGNORECASE)
"""A token in the place of a user's name."""
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_PEM_END = re.compile(r"\A(\(the first [^\n]*\)\n)?(?:[A-Za-z0-9+/=]{0,80}\n)++-----END [A-Z0-9 ]+-----")
"""What is left of a block where a text was cut at its beginning."""
_PROSE = re.compile(r"[a-z]+[.:]?")
_NAMED = re.compile(_WORD, re.IGNORECASE)
_PATTERNS = (_AFTER_WORD, _KEY_LINE, _URL, _URL_TOKEN, _AUTHORIZATION, _TOKEN)


def without_secrets(documents: Mapping[str, object]) -> dict[str, str]:
    """Each as text: what is no text is JSON. Whatever was a secret in one of them is in none."""
    known = {secret for document in documents.values() for secret in _secrets_of(document)}
    return {name: _as_text(document, known) for name, document in documents.items()}


def secrets_in(text: str) -> set[str]:
    """What follows a word that says so, without quotes."""
    matches = (match for pattern in _PATTERNS for match in pattern.finditer(text))
    found = (_bare(match["secret"]) for match in matches if not _is_prose(match))
    return {secret for secret in found if _worth_a_search(secret)}


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """The text without secrets that are known, without blocks of PEM, and without what its own words call a secret."""
    for secret in sorted(known, key=lambda each: (-len(each), each)):
        for form in (secret, _escaped(secret)):
            text = text.replace(form, LEFT_OUT)
    text = _PEM_END.sub(rf"\1{LEFT_OUT}", _PEM.sub(LEFT_OUT, text))
    for pattern in _PATTERNS:
        text = pattern.sub(_replaced, text)
    return text


def _replaced(match: re.Match[str]) -> str:
    return (
        match[0] if match["secret"].startswith(LEFT_OUT.split()[0]) else f"{match['word']}{match['between']}{LEFT_OUT}"
    )


def _is_prose(match: re.Match[str]) -> bool:
    """Whether it may be the next word of a sentence, as in `shared-secret differs`: sought everywhere that would tear holes into all texts."""
    blank = not match["between"].strip()
    return (
        blank and _PROSE.fullmatch(match["secret"]) is not None and match.string[match.end() : match.end() + 1] != ";"
    )


def _worth_a_search(secret: str) -> bool:
    return len(secret.strip()) >= _SHORTEST and not secret.startswith(LEFT_OUT.split()[0])


def _as_text(document: object, known: Iterable[str]) -> str:
    if isinstance(document, str):
        return redacted(document, known)
    return json.dumps(_redacted_json(document, known), indent=1) + "\n"


def _redacted_json(value: object, known: Iterable[str], named: bool = False) -> object:
    """named: by a key that says that this is a secret."""
    match value:
        case str():
            return LEFT_OUT if named else redacted(value, known)
        case dict():
            return {
                redacted(str(key), known): _redacted_json(inner, known, _is_secret(key)) for key, inner in value.items()
            }
        case list() | tuple():
            return [_redacted_json(inner, known, named) for inner in value]
    return value


def _secrets_of(value: object, named: bool = False) -> Iterator[str]:
    match value:
        case str():
            yield from secrets_in(value)
            if named and _worth_a_search(value):
                yield value
        case dict():
            for key, inner in value.items():
                yield from _secrets_of(inner, _is_secret(key))
        case list() | tuple():
            for inner in value:
                yield from _secrets_of(inner, named)


def _is_secret(key: object) -> bool:
    return isinstance(key, str) and _NAMED.fullmatch(key) is not None


def _bare(secret: str) -> str:
    if len(secret) >= 2 and secret[0] == secret[-1] and secret[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", secret[1:-1]) if secret[0] == '"' else secret[1:-1]
    return secret.strip()


def _escaped(secret: str) -> str:
    """As it stands within quotes."""
    return secret.replace("\\", "\\\\").replace('"', '\\"')
