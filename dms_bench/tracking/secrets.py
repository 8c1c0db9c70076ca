"""Addresses of stores as they may be seen: without whoever logs in there, and what proves it.

What names a secret can never be listed in full, so the list is of what names none: of an address's parameters only
those are shown, and numbers. What others say about a store (drivers, HTTP clients) may hold any piece of its address,
in any form; the pieces are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

MASK = "***"
#: Parameters of addresses whose values may be seen.
_HARMLESS = {
    *("application_name", "cache", "channel_binding", "charset", "check_same_thread", "connect_timeout", "driver"),
    *("encrypt", "isolation_level", "mode", "nolock", "schema", "sslmode", "target_session_attrs", "timeout"),
    *("trusted_connection", "trustservercertificate", "vfs", "view"),
}
_NUMBER = re.compile(r"-?\d+(\.\d+)?|true|false|yes|no", re.IGNORECASE)
#: What names a secret.
_TELLING = (
    r"(?:[\w.-]*(?:passw|passphrase|pwd|secret|token(?!iz)|credential|signature|api[-_]?key|[-_]key)[\w.-]*"
    r"|pass|sig|key|uid|user|auth)"
)
_PAIR = re.compile(
    rf"(?i)(?<!\w)(?P<name>{_TELLING})(?P<sign>\s*=\s*|['\"]\s*:\s*['\"])(?P<value>\{{[^}}]*\}}|[^\s;,&'\"]+)"
)
#: Whoever logs in, of an address whose scheme somebody has forgotten.
_BARE_LOGIN = re.compile(r"(?<![\w/*@])[\w.+%-]+:(?!//)\S+@(?=[\w\[])")
#: An address in a text; up to an `@` there may be quotes in it.
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://(?:\S*@)?[^\s'\"]*")
_WHOLE_BARE_LOGIN = re.compile(r"^[^\s:/@]+:.*@", re.DOTALL)
_WHOLE_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://.*", re.DOTALL)
#: The shortest piece of a secret that is looked for in what others say.
_SHORTEST = 4


def redact(text: str, address: str = "") -> str:
    """Return `text` without user names, passwords and other secrets of the addresses in it.

    Args:
        text: an address, or anything else.
        address: one whose secrets may be in the text in any form, also in pieces.
    """
    for secret in sorted(_secrets(address), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _ADDRESS.sub(lambda found: shown(found[0]), text)
    text = _BARE_LOGIN.sub(f"{MASK}@", text)
    return _PAIR.sub(lambda found: f"{found['name']}{found['sign']}{MASK}", text)


def shown(address: str) -> str:
    """Return an address as it may be seen; whatever stands in it, spaces and quotes too, is of the address."""
    if not _WHOLE_ADDRESS.fullmatch(address):
        return redact(_WHOLE_BARE_LOGIN.sub(f"{MASK}@", address))
    scheme, _, rest = address.partition("://")
    login, at, place = rest.rpartition("@")  # the last one: passwords hold slashes, and more of `@`
    if _is_unclear(login):
        return f"{scheme}://{MASK}"
    place, hash_, _ = place.partition("#")
    place, mark, parameters = place.partition("?")
    host, slash, path = place.partition("/")
    no_port = _no_port(host)
    host = host.removesuffix(no_port) + MASK * bool(no_port)
    listed = "".join(part if part in ("&", ";") else _parameter(part) for part in re.split("([&;])", parameters))
    fragment = f"#{MASK}" if hash_ else ""
    return f"{scheme}://{MASK if at else ''}{at}{host}{slash}{path}{mark}{listed}{fragment}"


def redacted(content: Any, address: str = "") -> Any:
    """Return content of JSON with every text in it redacted; `address` as in `redact`."""
    if isinstance(content, str):
        whole = content == address or _WHOLE_ADDRESS.fullmatch(content)
        return shown(content) if whole else redact(content, address)
    if isinstance(content, dict):
        return {name: redacted(value, address) for name, value in content.items()}
    return [redacted(value, address) for value in content] if isinstance(content, list | tuple) else content


def has_secrets(address: str) -> bool:
    """Tell whether something of an address must not be seen."""
    return any(_hidden_parts(address))


def _parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    if not equals:  # perhaps the end of a secret with an & in it
        return MASK if name and name.lower() not in _HARMLESS else name
    return f"{name}={MASK}" if value and not _is_harmless(name, value) else part


def _is_harmless(name: str, value: str) -> bool:
    plain = unquote_plus(name).strip().lower()
    if plain in _HARMLESS:
        return True
    return not re.fullmatch(_TELLING, plain, re.IGNORECASE) and bool(_NUMBER.fullmatch(value))


def _secrets(address: str) -> set[str]:
    """Return what must not be seen of an address, whole and in pieces, in every form that others may give it."""
    whole: set[str] = set()
    for secret in _hidden_parts(address):
        plain = unquote_plus(secret)
        whole |= {secret, plain, quote(plain, safe=""), quote_plus(plain), repr(plain)[1:-1]}
    pieces = {piece for secret in whole for letters in (0, re.ASCII) for piece in re.findall(r"\w+", secret, letters)}
    return {secret for secret in whole | pieces if len(secret) >= _SHORTEST and not _NUMBER.fullmatch(secret)}


def _hidden_parts(address: str) -> Iterator[str]:
    whole = _WHOLE_ADDRESS.fullmatch(address)  # else its scheme is missing, or part of what nobody may see
    login, _, place = (address.partition("://")[2] if whole else address).rpartition("@")
    if _is_unclear(login):
        yield from (login, place)
        return
    user, _, password = login.partition(":")
    yield from filter(None, (user, password))  # a token may stand for either
    place, _, fragment = place.partition("#")
    for part in re.split("[&;]", place.partition("?")[2]):
        name, equals, value = part.partition("=")
        if equals and value and not _is_harmless(name, value):
            yield value
    yield from filter(None, (fragment, _no_port(re.split("[/?]", place)[0])))


def _is_unclear(login: str) -> bool:
    """Tell whether what stands before an `@` may be a password with a ? or #, or parameters with an @."""
    return "?" in login or "#" in login


def _no_port(host: str) -> str:
    """Return what stands behind a host's colon and is no port: a password whose host is missing."""
    port = host.rpartition(":")[2] if ":" in host else ""
    return "" if port.isdigit() or port.endswith("]") else port
