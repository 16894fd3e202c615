# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From texts to a network's inputs, as the sidecar's `text` says.

text: {tokenizer: tokenizer.json}                       # input_ids, and attention_mask where the network has it
text: {embeddings: words.npz}                           # a vector for each text that may be asked for
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError, option, parse
from seg_perception.plugins import TensorSpec, require
from seg_perception.segmenters.prompting import PromptError

IDS, MASK = "input_ids", "attention_mask"
CLIP_LENGTH = 77  # tokens that CLIP reads, where the network's input leaves it open
ENDS = ("<|endoftext|>", "</s>", "[PAD]", "<pad>")  # what pads where the tokenizer.json does not say it


@dataclass(frozen=True)
class TextConfig:
    """How texts become inputs: one of tokenizer and embeddings."""

    tokenizer: str = option("", "tokenizer.json of Hugging Face's tokenizers library, relative to the model's folder")
    embeddings: str = option("", ".npz with a vector under the name of each text, relative to the model's folder")
    template: str = option("{}", "what each text is put into, e.g. 'a photo of a {}'")
    pad: str = option("", "token that fills up; empty = as the tokenizer.json has it, else its end token")

    def __post_init__(self) -> None:
        if bool(self.tokenizer) == bool(self.embeddings):
            found = "both" if self.tokenizer else "none"
            raise ConfigError(f"expected either tokenizer or embeddings, got {found}")
        if "{}" not in self.template:
            raise ConfigError(f"template: expected {{}} where the text goes, got '{self.template}'")


class TextInputs(ABC):
    """Makes the inputs `names` of texts, one row each."""

    names: tuple[str, ...]

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> dict[str, NDArray]:
        """Raises PromptError for a text that cannot be taken."""


class Tokens(TextInputs):
    """Tokens of a tokenizer.json, filled up to the network's length. Raises ConfigError, PluginError."""

    def __init__(self, config: TextConfig, path: Path, ids: TensorSpec, mask: TensorSpec | None) -> None:
        library = require("tokenizers", "text")
        try:
            self._tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no errors of its own
            raise ConfigError(f"text.tokenizer: {path} is not a readable tokenizer.json: {error}") from error
        self._length = ids.shape[1] if ids.shape[1] > 0 else CLIP_LENGTH
        self._specs = [ids] if mask is None else [ids, mask]
        self.names = tuple(spec.name for spec in self._specs)
        self._template = config.template
        self._pad = self._pad_id(config.pad)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()  # a text that is cut means something else

    def __call__(self, texts: Sequence[str]) -> dict[str, NDArray]:
        ids = np.full((len(texts), self._length), self._pad, self._specs[0].dtype)
        mask = np.zeros((len(texts), self._length), self._specs[-1].dtype)
        for row, text in enumerate(texts):
            tokens = self._tokenizer.encode(self._template.replace("{}", text)).ids
            if len(tokens) > self._length:
                raise PromptError(f"text '{text:.40}' has {len(tokens)} tokens, the network reads {self._length}")
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        return dict(zip(self.names, (ids, mask), strict=False))

    def _pad_id(self, name: str) -> int:
        said = self._tokenizer.padding
        if not name and said:
            return int(said["pad_id"])
        for token in (name,) if name else ENDS:
            if (found := self._tokenizer.token_to_id(token)) is not None:
                return int(found)
        raise ConfigError(f"text.pad: the tokenizer has no token {' or '.join((name,) if name else ENDS)}")


class Embeddings(TextInputs):
    """Vectors computed beforehand; only texts that are in the file can be asked for. Raises ConfigError."""

    def __init__(self, path: Path, spec: TensorSpec) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                self._vectors = {name: np.asarray(file[name], spec.dtype).reshape(-1) for name in file.files}
        except (OSError, ValueError) as error:
            raise ConfigError(f"text.embeddings: {path} is not a readable .npz file: {error}") from None
        size = spec.shape[-1]
        for name, vector in self._vectors.items():
            if size > 0 and len(vector) != size:
                raise ConfigError(f"text.embeddings: '{name}': expected {size} numbers, got {len(vector)}")
        self.names = (spec.name,)

    def __call__(self, texts: Sequence[str]) -> dict[str, NDArray]:
        for text in texts:
            if text not in self._vectors:
                close = difflib.get_close_matches(text, self._vectors, n=3) or sorted(self._vectors)[:8]
                raise PromptError(f"text '{text}' has no embedding beside the model; there are {', '.join(close)} ...")
        return {self.names[0]: np.stack([self._vectors[text] for text in texts])}


def text_inputs(section: Mapping[str, Any], folder: Path, inputs: Sequence[TensorSpec]) -> TextInputs | None:
    """What the sidecar's `text` describes, None where it is empty. Raises ConfigError, PluginError."""
    if not section:
        return None
    config: TextConfig = parse(TextConfig, section, "text")
    specs = {spec.name: spec for spec in inputs if len(spec.shape) == 2}
    if config.tokenizer:
        if IDS not in specs:
            raise ConfigError(f"text.tokenizer: the model has no input {IDS} of 2 dimensions")
        return Tokens(config, folder / config.tokenizer, specs[IDS], specs.get(MASK))
    others = [spec for name, spec in specs.items() if name not in (IDS, MASK) and spec.dtype.kind == "f"]
    if len(others) != 1:
        raise ConfigError("text.embeddings: the model has not exactly one input (texts, numbers) for them")
    return Embeddings(folder / config.embeddings, others[0])
