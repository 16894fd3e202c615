# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models pull`."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from seg_perception.cli.console import add_json, say, write_result
from seg_perception.cli.models.shared import told
from seg_perception.files import file_digest
from seg_perception.options import ConfigError
from seg_perception.zoo.download import download
from seg_perception.zoo.manifest import Known, read_manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|URL", help="a name of the manifest, or an address")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="your own (the shipped one)")
    parser.add_argument("--sha256", metavar="HEX", help="of the file at an address, as its publisher states it")
    parser.add_argument("--licence", metavar="TEXT", help="of the file at an address")
    parser.add_argument("--accept-licence", action="store_true", help="you have read it and agree")
    parser.add_argument("--into", type=Path, default=Path("models"), metavar="FOLDER", help="(models)")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    known = _known(options)
    target = options.into / known.file
    if target.is_file():
        found = file_digest(target)
        if found != known.sha256:
            raise ConfigError(f"{target}: another file of that name is there (SHA-256 {found[:16]}...): move it away")
        return _done(options, known, target, "is there already")
    licence = f"{known.licence}{f', {known.licence_url}' if known.licence_url else ''}"
    if not known.url:
        raise ConfigError(f"{options.model}: no address is known for it (licence {licence}); {known.export}")
    say(f"{known.file}: licence {licence}")
    if not options.accept_licence:
        raise ConfigError(f"{known.file}: licence {licence}: read it, and say --accept-licence if you agree")
    options.into.mkdir(parents=True, exist_ok=True)
    with told():
        download(known.url, target, known.sha256, known.bytes)
    return _done(options, known, target, "fetched and checked")


def _known(options: argparse.Namespace) -> Known:
    if "://" in options.model:
        if not options.sha256:
            raise ConfigError(f"{options.model}: say --sha256 as its publisher states it: the file is checked by it")
        name = PurePosixPath(unquote(urlsplit(options.model).path)).name
        licence = options.licence or "not known: ask who publishes it"
        return Known(name, options.model, options.sha256.lower(), licence=licence)
    models = read_manifest(options.manifest)
    if options.model not in models:
        close = difflib.get_close_matches(options.model, models, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(models) or 'none'}"
        raise ConfigError(f"no model '{options.model}' in the manifest; {hint}")
    return models[options.model]


def _done(options: argparse.Namespace, known: Known, target: Path, what: str) -> int:
    result = {"file": str(target), "sha256": known.sha256, "licence": known.licence, "what": what}
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(f"{target}: {what}")
    return 0
