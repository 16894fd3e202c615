# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A file from the network: goes on where it was cut off, is checked, and appears whole or not at all."""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from seg_perception.backends.progress import Progress, tell
from seg_perception.files import file_digest
from seg_perception.options import ConfigError

CHUNK = 1 << 16
TIMEOUT = 20.0  # s without a byte
TRIES = 5
PAUSE = 1.0  # s before the second try; twice as long before each further one
LARGEST = 1 << 34  # bytes of a file whose size nobody stated


class _Connection(Exception):  # noqa: N818  never leaves this module
    """It broke; what came is kept."""


def download(url: str, target: Path, sha256: str, size: int = 0) -> None:
    """Fetches `url` into `target`, checked by its SHA-256 and, if it is not 0, its size in bytes.

    What came before a break or a cancel is kept beside the target as a hidden .part file; the next call goes on from
    there. Raises ConfigError: not to be had, not the file that was meant (then nothing is kept), no room for it.
    """
    part = target.with_name(f".{target.name}.{sha256[:12]}.part")
    if size and size > (free := shutil.disk_usage(target.parent).free) + _size(part):
        raise ConfigError(f"{target.name}: {size / 1e6:.0f} MB, but {target.parent} has {free / 1e6:.0f} MB free")
    for attempt in range(TRIES):
        try:
            _fetch(url, part, size, target.name)
            break
        except _Connection as error:
            if attempt + 1 == TRIES:
                kept = f"; {_size(part) / 1e6:.1f} MB are kept, the next pull goes on from there" if _size(part) else ""
                raise ConfigError(f"{url}: {error}{kept}") from None
            tell(Progress(f"{target.name}: {error}: trying again"))
            time.sleep(PAUSE * 2**attempt)
    tell(Progress(f"checking {target.name}", 1.0))
    found = file_digest(part)
    if found != sha256.lower():
        part.unlink()
        raise ConfigError(
            f"{url}: not the file that was meant: SHA-256 {found[:16]}..., expected {sha256[:16]}...; nothing is kept"
        )
    part.replace(target)


def _fetch(url: str, part: Path, size: int, name: str) -> None:
    """Completes `part`."""
    have = _size(part)
    if size and have >= size:
        if have == size:
            return
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            start, total = _extent(answer, have)
            if size and total and total != size:
                raise ConfigError(f"{url}: expected {size} bytes, the server has {total}")
            _write(answer, part, start, total or size, url, name)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _total(error.headers.get("Content-Range", "")) != have:  # else it is complete already
                part.unlink()
                raise _Connection("what was kept is of another file") from None
            return
        if error.code in (408, 429) or error.code >= 500:
            raise _Connection(f"the server says {error.code} {error.reason}") from None
        raise ConfigError(f"{url}: the server says {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", "") or error
        raise _Connection(f"{type(error).__name__}: {' '.join(str(reason).split())}") from None


def _write(answer: Any, part: Path, start: int, total: int, url: str, name: str) -> None:
    done = start
    begin = time.monotonic()
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if done > (total or LARGEST):
                    raise ConfigError(f"{url}: more than the {total or LARGEST} bytes that were stated")
                rate = (done - start) / max(time.monotonic() - begin, 1e-3)
                text = f"{name}: {done / 1e6:.1f} MB"
                tell(Progress(text, done / total, (total - done) / rate) if total else Progress(text))
    except OSError as error:
        if isinstance(error, TimeoutError | ConnectionError):
            raise
        part.unlink(missing_ok=True)
        raise ConfigError(f"{part.parent}: {error.strerror or error}; nothing is kept") from error
    if total and done < total:
        raise _Connection(f"it ended after {done} of {total} bytes")


def _extent(answer: Any, have: int) -> tuple[int, int]:
    """Where the answer begins in the file, and how long the whole file is; 0 = not said."""
    if have and answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        stated = answer.headers.get("Content-Range", "")
        begins = re.match(r"bytes (\d+)-", stated)
        if begins and int(begins[1]) == have:
            return have, _total(stated)
        raise ConfigError(f"the server answered with another part of the file ({stated or 'not said which'})")
    return 0, int(answer.headers.get("Content-Length") or 0)


def _total(content_range: str) -> int:
    stated = re.search(r"/(\d+)$", content_range)
    return int(stated[1]) if stated else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
