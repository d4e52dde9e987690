"""The keys under which secrets are stored: a file of the home that is never in the database. Seals and opens.

`GASTOWN_HOME/keys/secrets` (0600 in a directory of 0700) holds one key a line, AES-256 in base64: the first one seals,
all of them open. To rotate, a key is put first (`rotate`) and everything is sealed anew. What is sealed names where it
belongs (`place`): copied to another row of the database it opens nothing.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path

from django.conf import settings

from beads import private
from beads.errors import Refused

_KEY, _NONCE = 32, 12
_FORM = "v1:"


def folder() -> Path:
    """`GASTOWN_HOME/keys`, which only we can look into; made when missing."""
    path = Path(settings.GASTOWN_HOME) / "keys"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise Refused(f"{path}, where keys are kept, cannot be made ours alone: {error.strerror}") from None
    return path


def key_file() -> Path:
    """Where the keys are."""
    return folder() / "secrets"


def make() -> None:
    """Make the key file when there is none; of two who do so at once, one is first and both use its key."""
    private.write_once(key_file(), _fresh())


def rotate() -> None:
    """Put a new key first; the old ones still open what they have sealed."""
    _keys()
    private.write(key_file(), _fresh() + key_file().read_text())


def seal(text: str, place: str) -> str:
    """`text` as only the holder of the keys can read it, and only for `place`. Raises Refused without a usable key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # costs every command's start, so only here

    nonce = os.urandom(_NONCE)
    sealed = nonce + AESGCM(_keys()[0]).encrypt(nonce, text.encode(), place.encode())
    return _FORM + base64.b64encode(sealed).decode()


def unseal(sealed: str, place: str) -> str:
    """The text that `seal` was given. Raises Refused when no key opens it, or when it was sealed for another place."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    for key in _keys():
        try:
            data = base64.b64decode(sealed.removeprefix(_FORM), validate=True)
            return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], place.encode()).decode()
        except (InvalidTag, ValueError):
            continue
    remedy = "restore the key file that it was set with, or set it anew with `gastown secret set`"
    raise Refused(f"no key in {key_file()} opens the secret {place}: {remedy}")


def _fresh() -> str:
    return base64.b64encode(secrets.token_bytes(_KEY)).decode() + "\n"


def _keys() -> list[bytes]:
    """All keys, the sealing one first. Raises Refused, with one line that names the file and what to do."""
    file = key_file()
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        lines = file.read_text().split()
    except FileNotFoundError:
        raise Refused(
            f"{file}, which holds the key of all secrets, is missing: restore it from a backup, or remove "
            "each secret (`gastown secret list`, `gastown secret remove NAME`) and set it anew"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not text"
        if isinstance(error, OSError):
            why = str(error.strerror)
        raise Refused(f"{file}, which holds the key of all secrets, cannot be read ({why}): run as its owner") from None
    if mode & 0o077:
        raise Refused(f"{file}, which holds the key of all secrets, is open to other users: chmod 600 it")
    try:
        keys = [base64.b64decode(line, validate=True) for line in lines]
    except ValueError:
        keys = []
    if not keys or any(len(key) != _KEY for key in keys):
        raise Refused(f"{file}, which holds the key of all secrets, is damaged: restore it from a backup")
    return keys
