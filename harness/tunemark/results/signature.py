"""Signatures of seals by the user's own ssh key, with OpenSSH's `ssh-keygen -Y`: who says that this was measured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec

from tunemark.errors import BadStore
from tunemark.results.stored_file import read_stored_file

# The namespace keeps a signature from being used for something else than a seal.
_NAMESPACE = "tunemark"
SIGNATURE_SUFFIX = ".sig"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature's check says. signer: the principal of the allowed signers, or the key's fingerprint if nobody
    said who is allowed; "" where it does not fit. why: in ssh-keygen's words, where it does not."""

    signer: str
    why: str = ""


def sign_seal(seal: Path, key: Path) -> Path:
    """Sign a seal's file; the signature's path, beside it. key: a private key, or a public one whose private key an
    agent holds. `BadStore` if ssh-keygen cannot."""
    signature = seal.with_name(seal.name + SIGNATURE_SUFFIX)
    signature.unlink(missing_ok=True)  # ssh-keygen would ask before it overwrites one
    done = _run(["-Y", "sign", "-f", str(key), "-n", _NAMESPACE, str(seal)], b"")
    if done.returncode or not signature.exists():
        raise BadStore(
            what=f"{seal} could not be signed with {key}",
            why=done.stderr.decode(errors="replace").strip(),
            next="give a key that ssh-keygen can use without asking, such as ~/.ssh/id_ed25519 with ssh-agent",
        )
    return signature


def check_signature(seal: Path, allowed_signers: Path | None) -> Signature | None:
    """Check the signature beside a seal's file; None if there is none. allowed_signers: a file as ssh-keygen(1)
    describes it; without it any key fits, and its fingerprint is the signer."""
    signature = seal.with_name(seal.name + SIGNATURE_SUFFIX)
    if not signature.exists():
        return None
    try:
        content = read_stored_file(seal)
        read_stored_file(signature)
    except OSError as error:
        return Signature(signer="", why=str(error))
    common = ["-n", _NAMESPACE, "-s", str(signature)]
    if allowed_signers is None:
        done = _run(["-Y", "check-novalidate", *common], content)
        found = re.search(rb"with (\S+ key \S+)", done.stdout)
        signer = found[1].decode(errors="replace") if found else ""
    else:
        names = _run(["-Y", "find-principals", "-s", str(signature), "-f", str(allowed_signers)], content)
        signer = names.stdout.decode(errors="replace").split("\n")[0].strip()
        if names.returncode or not signer:
            return Signature(signer="", why=f"its key is not in {allowed_signers}")
        done = _run(["-Y", "verify", "-f", str(allowed_signers), "-I", signer, *common], content)
    if done.returncode:
        why = (done.stderr or done.stdout).decode(errors="replace").strip()
        return Signature(signer="", why=why or "it is not of this content")
    return Signature(signer=signer)


def _run(words: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", *words], input=content, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "signatures are made and checked by OpenSSH's own program"
        raise BadStore(
            what=f"ssh-keygen cannot be used: {error}", why=why, next="install OpenSSH 8.1 or newer"
        ) from error
