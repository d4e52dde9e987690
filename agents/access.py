"""A rig's own way to its remote: what `[git] credential` puts into the environment of the server's git.

The value of the secret is a private ssh key, or `user:token` (or a token alone) for http and https. It is for the
server alone, only for exactly the remote's host and port, in no argument of a process. Nothing else is tried beside it:
no agent, key, netrc or credential helper of the server's account. Host keys of ssh are pinned in a file of the rig's
own: by the first connection (`rig add` makes one), and from then on another key is refused.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from agents.runtime import failures, gitcmd
from beads import config as configs
from beads import keyring, outages, private, secrets
from beads.errors import GastownError, Invalid
from beads.models import Rig, Town

HTTP = re.compile(r"(https?)://(?:([^/:@\s]*)(?::[^/@\s]*)?@)?([^/@\s]+)(?:/.*)?")
SSH = re.compile(r"ssh://.+|[\w.+-]+@[\w.-]+:[^-\s][^\s]*")
TOKEN_USER = "x-access-token"  # noqa: S105 - GitHub's name for who has only a token; GitLab and Gitea take any
KNOWN_HOSTS = "known_hosts"


def access_of(rig: Rig) -> dict[str, str]:
    """The variables that git needs for the rig's remote; empty without a credential of its own.

    Raises GitFailed, to be tried again, for all that `variables` raises: the remote cannot be asked until somebody sees
    to it, and one rig's secret stops nothing but that rig.
    """
    name = configs.usable(rig.town.config, rig.config)[0].git.credential
    with _as_git():
        return variables(rig.town, name, rig.remote_url, folder_of(rig), rig.slug)


def note_outage(rig: Rig, error: gitcmd.GitFailed, now: dt.datetime, *, at_work: bool = False) -> None:
    """A rig's remote could not be asked, or says no to everything; other failures are no outage. `at_work`: as in
    `outages.Trouble`."""
    if error.fate in failures.TROUBLE:
        whole_host = failures.KINDS[error.kind].whole_host
        outages.failed(rig, outages.Trouble(error.kind, error.message, whole_host, at_work, error.branch), now)


def signing_key(rig: Rig) -> Path | None:
    """The file of the ssh key that signs the rig's commits; None when they are not signed.

    Raises GitFailed as `access_of` does, also for a kind of key whose signatures of the same text differ: a candidate
    that is built twice must be the same commit.
    """
    name = configs.usable(rig.town.config, rig.config)[0].git.signing_key
    if not name:
        return None
    with _as_git():
        value = secrets.values(rig.town, [name])[name]
        if not _is_key(value):
            raise Invalid(f"git.signing_key: the secret {name} is no private ssh key", field="git.signing_key")
        _check_signer(name, _normal(value))
        return _file(folder_of(rig), name, value)


@contextlib.contextmanager
def _as_git() -> Iterator[None]:
    try:
        yield
    except gitcmd.GitFailed:
        raise
    except GastownError as error:
        raise gitcmd.GitFailed(error.message, kind="credential") from error
    except OSError as error:
        raise gitcmd.GitFailed(f"the rig's keys cannot be written: {error}", kind="credential") from error


def folder_of(rig: Rig) -> Path:
    """Where the rig's key files and pinned host keys are."""
    return keyring.folder() / str(rig.pk)


def variables(town: Town | None, name: str, url: str, folder: Path, slug: str) -> dict[str, str]:
    """As `access_of`, for a remote that is perhaps no rig yet. `name`: of the town's secret; empty: no variables.

    Raises NotFound when the secret is not set, Invalid when it does not fit the remote, Refused when the key of all
    secrets cannot be had.
    """
    http, ssh = HTTP.fullmatch(url), SSH.fullmatch(url) is not None
    if not name or not (ssh or http):  # a local path needs none
        return {}
    if town is None:
        raise Invalid(f"git.credential: set it first: gastown secret set {name}", field="git.credential")
    value = secrets.values(town, [name])[name]
    if _is_key(value) != ssh:
        kind, other = ("an ssh key", "http") if http else ("no ssh key", "ssh")
        raise Invalid(f"git.credential: the secret {name} is {kind}, and the remote is {other}", field="git.credential")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # a netrc of our account must not speak for the rig
    told = {"HOME": str(folder), gitcmd.RIG: slug}
    return told | (_http(name, value, http) if http else _ssh(folder, _file(folder, name, value)))


def _http(name: str, value: str, remote: re.Match[str]) -> dict[str, str]:
    value = value.strip()
    if not value or re.search(r"[\x00-\x1f]", value):
        raise Invalid(
            f"git.credential: the secret {name} is not one line, user:token or a token", field="git.credential"
        )
    user, colon, token = value.partition(":")
    if not colon:
        user, token = unquote(remote[2] or "") or TOKEN_USER, value
    place = f"{remote[1]}://{remote[3]}"
    config = {
        # a redirect is an error: what it leads to is another place, and the credential is for this one
        "http.followRedirects": "false",
        "credential.helper": "",
        # git-lfs knows this one, and does not understand askpass: it would ask without end with a wrong token
        f"http.{place}/.extraHeader": f"Authorization: Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}",
    }
    return {
        "GIT_ASKPASS": str(gitcmd.ASKPASS),
        "GASTOWN_GIT_HOST": place,
        "GASTOWN_GIT_USER": user,
        "GASTOWN_GIT_PASSWORD": token,
        **gitcmd.more_config(config),
    }


def _ssh(folder: Path, key: Path) -> dict[str, str]:
    known = folder / KNOWN_HOSTS
    pinned = known.exists() and known.stat().st_size > 0
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes" if pinned else "accept-new",
        "UserKnownHostsFile": _quoted(known),
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "ForwardAgent": "no",
        "ConnectTimeout": "30",
        "LogLevel": "ERROR",
    }
    words = ["ssh", "-F", "/dev/null", "-o", f"IdentityFile={_quoted(key)}"]
    words += [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
    return {"GIT_SSH_COMMAND": shlex.join(words), "GIT_SSH_VARIANT": "ssh"}


def _quoted(path: Path) -> str:
    """A path as ssh's options take it: white space in quotes, and no % sequences."""
    return '"' + str(path).replace("%", "%%") + '"'


def _is_key(value: str) -> bool:
    return value.lstrip().startswith("-----BEGIN")


def _normal(value: str) -> str:
    """A key as ssh reads it: line ends of Unix, one at its end."""
    return value.replace("\r\n", "\n").strip() + "\n"


def _file(folder: Path, name: str, value: str) -> Path:
    """The key's file (0600), written when it is not there or is another key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file, text = folder / f"{name}.key", _normal(value)
    try:
        if file.read_text(encoding="utf-8") == text and stat.S_IMODE(file.stat().st_mode) == 0o600:
            return file
    except (OSError, UnicodeDecodeError):
        pass  # it is written anew
    private.write(file, text)
    return file


def _check_signer(name: str, text: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        load = load_pem_private_key
        if "OPENSSH" in text.partition("\n")[0]:
            load = load_ssh_private_key
        key = load(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise Invalid(
            f"git.signing_key: the secret {name} cannot be used: it is damaged or has a passphrase",
            field="git.signing_key",
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise Invalid(
            f"git.signing_key: the secret {name} is neither an ed25519 nor an RSA key: others sign the same commit "
            "differently each time",
            field="git.signing_key",
        )


# -- host keys --------------------------------------------------------------------------------------------------------


def host_keys(rig: Rig) -> list[str]:
    """The pinned host keys, each as `HOST KIND SHA256:fingerprint`."""
    try:
        lines = (folder_of(rig) / KNOWN_HOSTS).read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    prints = [
        (r, base64.b64encode(hashlib.sha256(base64.b64decode(r[2])).digest()).decode()) for r in rows if len(r) > 2
    ]
    return [f"{row[0]} {row[1]} SHA256:{text.rstrip('=')}" for row, text in prints]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder to look at a remote with: what it shows of its host keys is pinned there (see `adopt`)."""
    with tempfile.TemporaryDirectory(dir=keyring.folder(), prefix="look-") as name:
        yield Path(name)


def adopt(folder: Path, rig: Rig) -> None:
    """What was pinned while `folder` served for looking at the remote is the rig's from now on."""
    try:
        text = (folder / KNOWN_HOSTS).read_text()
    except FileNotFoundError:
        return
    own = folder_of(rig)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    private.write(own / KNOWN_HOSTS, text)
