"""Published files: downloaded with resume, verified, and cached where torch.hub caches them.

The resume is written here because pooch and urllib3's Retry start again at byte 0.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import NameResolutionError

from export.errors import ExportError, WeightsUnavailable
from export.store import exclusive

CHUNK = 2**18
TIMEOUT_S = (10, 60)  # to connect, and between two chunks
ATTEMPTS = 4
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Download:
    """A published file.

    ``sha256`` is the digest, or its first digits if no more is published. ``bytes`` is None if the
    size is not published; then the file may have ``max_bytes``.
    """

    file: str
    url: str
    sha256: str
    bytes: int | None = None
    max_bytes: int = MAX_BYTES


def cache_folder() -> Path:
    """The folder that ``torch.hub`` caches checkpoints in, found without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))  # noqa: PTH118
    return Path(home).expanduser() / "hub" / "checkpoints"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(download: Download, folder: Path | None = None) -> Path:
    """``download`` as a verified file: from the cache, or downloaded into it.

    A download is written to ``<file>.part``, resumed from there, and renamed only after its size
    and digest have been checked. One process at a time downloads into ``folder``; others wait and
    use its file. Raises WeightsUnavailable if there is no network, and ExportError for a wrong file
    or one larger than published (``max_bytes`` if no size is published).
    """
    folder = folder or cache_folder()
    path = folder / download.file
    if not path.exists():
        busy = f"another export is downloading into {folder}"
        try:
            with exclusive(folder, busy, wait=True):
                if not path.exists():
                    _fetch(download, path)
                    return path
        except OSError as error:
            raise ExportError(f"cannot write to {folder}: {error.strerror}") from error
    _verify(download, path, f"delete {path} to have it downloaded again")
    return path


def _fetch(download: Download, path: Path) -> None:
    """Download to ``path``, whose folder this process has locked."""
    part = path.with_name(path.name + ".part")
    try:
        _retry(download, part)
        _verify(download, part, f"{download.url} did not give the file that was published")
    except requests.RequestException as error:
        raise WeightsUnavailable(
            f"the published file {download.file} is not here and cannot be downloaded "
            f"({_reason(error)})\n"
            f"  looked in    {path.parent}\n"
            f"  and at       {download.url}\n"
            f"  what to do   put the file into that folder and run this again"
        ) from error
    except ExportError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def _retry(download: Download, part: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _download_rest(download, part)
        except requests.RequestException as error:
            response = error.response
            refused = response is not None and response.status_code < 500
            if attempt == ATTEMPTS or refused or _has_no_network(error):
                raise
            pause = 2 ** (attempt - 1)
            print(
                f"  {_reason(error)}; again in {pause} s ({attempt}/{ATTEMPTS - 1})",
                file=sys.stderr,
            )
            time.sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _download_rest(download: Download, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
    with requests.get(download.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to download; the digest decides whether the part is complete
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        have = have if resumed else 0
        length = response.headers.get("content-length")
        total = have + int(length) if length else download.bytes
        _check_size(download, total or 0)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=f"  {download.file}",
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                mininterval=0.5,
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                have += len(chunk)
                _check_size(download, have)
    if length and total is not None and have < total:
        raise requests.ConnectionError(f"the connection ended at {have} of {total} bytes")


def _check_size(download: Download, size: int) -> None:
    """Raise ExportError if ``size`` bytes are more than the file may have."""
    limit = download.bytes or download.max_bytes
    if size > limit:
        raise ExportError(f"{download.url} gives more than {limit} bytes: not what was published")


def _verify(download: Download, path: Path, advice: str) -> None:
    size = path.stat().st_size
    if download.bytes is not None and size != download.bytes:
        raise ExportError(f"{path} has {size} bytes, not {download.bytes}: {advice}")
    digest = sha256_of(path)
    if not digest.startswith(download.sha256):
        raise ExportError(
            f"{path} has sha256 {digest}, not the published {download.sha256}: {advice}"
        )


def _reason(error: Exception) -> str:
    """The cause in one phrase; urllib3's message nests three exceptions in one line."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if _has_no_network(error):
        return "the server's name cannot be resolved: no network?"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    text = str(error)
    return text if text.startswith("the connection ended") else "no connection"


def _has_no_network(error: Exception) -> bool:
    """Whether the host name did not resolve: a retry would not help."""
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", None), NameResolutionError)
