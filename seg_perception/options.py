# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Options declared once, beside their unit and range: checked, listed, documented and turned into ROS parameters.

A section is a frozen dataclass whose fields are made by `option`, `section`, `plugin` or `plugins`:

    @dataclass(frozen=True)
    class Config:
        score_threshold: float = option(0.25, "instances below this are dropped", ge=0, le=1, live=True)
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seg_perception.plugins import PluginError, available, load_plugin


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that names the key, the value and what fits."""


@dataclass(frozen=True)
class Selected:
    """A plugin chosen by name, with its validated `Config`. `create()` builds it."""

    group: str
    plugin: str
    config: Any

    def create(self) -> Any:
        return load_plugin(self.group, self.plugin)(self.config)


@dataclass(frozen=True)
class Option:
    """One leaf of a configuration: dotted `name`, current `value`, and what was declared about it."""

    name: str
    kind: Any
    default: Any
    value: Any
    doc: str
    unit: str = ""
    ge: float | None = None
    le: float | None = None
    choices: tuple[Any, ...] = ()
    live: bool = False


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    choices: Sequence[Any] = (),
    live: bool = False,
) -> Any:
    """A leaf. `ge`, `le` bound numbers (each one of a list); `live` = may change while the node is active."""
    meta = {"doc": doc, "unit": unit, "ge": ge, "le": le, "choices": tuple(choices), "live": live}
    return field(default=default, metadata=meta)


def section(cls: type, doc: str) -> Any:
    """A nested section, by default as its class has it."""
    return field(default_factory=cls, metadata={"doc": doc})


def plugin(group: str, default: str, doc: str) -> Any:
    """A section `{plugin: NAME, ...}` whose other keys are the plugin's own; parsed to `Selected`."""
    return field(default_factory=lambda: select(group, {"plugin": default}, ""), metadata={"doc": doc, "group": group})


def plugins(group: str, default: Sequence[str], doc: str) -> Any:
    """A list of plugin names, each with an optional section of its own beside the list; parsed to `Selected`s."""
    return field(
        default_factory=lambda: tuple(select(group, {"plugin": name}, "") for name in default),
        metadata={"doc": doc, "group": group, "many": True},
    )


# -- changing while in use ---------------------------------------------------------------------------------------------


def adapted(made: Any, old: Selected, new: Selected, section: str) -> Any:
    """The plugin `made` for `old`, with the options of `new`. Raises ConfigError when it cannot take them in use."""
    if old == new:
        return made
    if old.plugin != new.plugin:
        raise ConfigError(f"{section}.plugin cannot change while the model is loaded: configure anew")
    if not hasattr(made, "with_config"):
        raise ConfigError(
            f"{section}: plugin '{new.plugin}' cannot change its options while loaded: needs cleanup first"
        )
    return made.with_config(new.config)


def refuse_fixed(old: Any, new: Any, apart: Sequence[str] = ()) -> None:
    """Raises ConfigError naming the first option that differs and is not live; `apart` are not looked at."""
    for key in dataclasses.fields(new):
        fixed = not key.metadata.get("live") and key.name not in apart
        if fixed and getattr(new, key.name) != getattr(old, key.name):
            raise ConfigError(f"{key.name} cannot change while the model is loaded: configure the segmenter anew")


# -- checking ----------------------------------------------------------------------------------------------------------


def parse(cls: type, values: Any, path: str = "") -> Any:
    """A `cls` section from a mapping. Raises ConfigError naming the first key that is unknown or does not fit."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or 'config'}: expected a mapping of keys, got {_show(values)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    lists = {name: f for name, f in fields.items() if f.metadata.get("many")}
    extra = {key for f in lists.values() for key in available(f.metadata["group"])}
    extra |= {str(name) for key in lists for name in _as_list(values.get(key, ()))}
    for key in values:
        if key not in fields and key not in extra:
            raise ConfigError(_unknown(_join(path, str(key)), str(key), [*fields, *sorted(extra)]))
    hints = typing.get_type_hints(cls)
    parsed = {
        name: _parse_field(f, hints[name], values, _join(path, name))
        for name, f in fields.items()
        if name in values or (f.metadata.get("many") and extra & set(values))
    }
    try:
        return cls(**parsed)
    except ConfigError:
        raise
    except ValueError as error:  # from a section's own __post_init__
        raise ConfigError(f"{path + ': ' if path else ''}{error}") from error


def select(group: str, values: Any, path: str) -> Selected:
    """The plugin that `values` (a name or `{plugin: NAME, ...}`) asks for, its options checked."""
    spec = {"plugin": values} if isinstance(values, str) else values
    if not isinstance(spec, Mapping) or not isinstance(spec.get("plugin"), str):
        raise ConfigError(f"{path}: expected {{plugin: NAME, ...}} with one of {available(group)}, got {_show(values)}")
    name = spec["plugin"]
    try:
        loaded = load_plugin(group, name)
    except PluginError as error:
        raise ConfigError(f"{_join(path, 'plugin')}: {error}") from error
    own = {key: value for key, value in spec.items() if key != "plugin"}
    return Selected(group, name, parse(loaded.Config, own, path))


def _parse_field(f: dataclasses.Field, hint: Any, values: Mapping, path: str) -> Any:
    meta = f.metadata
    if meta.get("many"):
        own = typing.cast(Any, f).default_factory
        names = _as_list(values[f.name] if f.name in values else [s.plugin for s in own()])
        base = path.rpartition(".")[0]
        for name in set(available(meta["group"])) & set(values) - set(names):  # not asked for, but checked all the same
            select(meta["group"], {"plugin": name, **(values[name] or {})}, _join(base, name))
        return tuple(
            select(meta["group"], {"plugin": str(name), **(values.get(name) or {})}, _join(base, str(name)))
            for name in names
        )
    value = values[f.name]
    if "group" in meta:
        return select(meta["group"], value, path)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), {} if value is None else value, path)
    if isinstance(value, bool) and str(value).lower() in meta.get("choices", ()):
        value = str(value).lower()  # YAML and ROS read true without quotes as a boolean
    checked = _convert(value, hint, path, meta.get("unit", ""))
    _check_range(checked, meta, path)
    return checked


def _convert(value: Any, hint: Any, path: str, unit: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return value if any(isinstance(value, typing.get_origin(a) or a) for a in args) else _refuse(value, hint, path)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            _refuse(value, hint, path)
        if args[-1] is not Ellipsis and len(args) != len(value):
            raise ConfigError(f"{path}: expected {len(args)} values, got {len(value)}: {_show(value)}")
        return tuple(_convert(v, args[0], f"{path}[{i}]", unit) for i, v in enumerate(value))
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            _refuse(value, hint, path, unit)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (hint is int and isinstance(value, bool)) or not isinstance(value, hint):
        _refuse(value, hint, path, unit)
    return value


def _check_range(value: Any, meta: Mapping[str, Any], path: str) -> None:
    ge, le, choices, unit = meta.get("ge"), meta.get("le"), meta.get("choices") or (), meta.get("unit", "")
    for v in value if isinstance(value, tuple) else (value,):
        if choices and v not in choices:
            raise ConfigError(f"{path}: expected one of {', '.join(map(str, choices))}, got {_show(v)}")
        if not isinstance(v, int | float) or isinstance(v, bool):
            continue
        if v != v or (ge is not None and v < ge) or (le is not None and v > le):
            raise ConfigError(f"{path}: expected {range_text(ge, le, unit)}, got {_show(v)}")


def range_text(ge: float | None, le: float | None, unit: str = "") -> str:
    """A range in words: `0 to 1`, `at least 0.01 m`."""
    tail = f" {unit}" if unit else ""
    if ge is not None and le is not None:
        return f"{ge:g} to {le:g}{tail}"
    return (
        f"at least {ge:g}{tail}" if ge is not None else f"at most {le:g}{tail}" if le is not None else f"a number{tail}"
    )


def _refuse(value: Any, hint: Any, path: str, unit: str = "") -> typing.NoReturn:
    raise ConfigError(f"{path}: expected {kind_text(hint)}{f' [{unit}]' if unit else ''}, got {_show(value)}")


def kind_text(hint: Any) -> str:
    """A type in words for error lines and tables."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"a list of {count}{kind_text(args[0]).removeprefix('a ')}s"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, "a value")


def _unknown(path: str, key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known) or 'none'}"
    return f"unknown key '{path}'; {hint}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or ())


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# -- listing -----------------------------------------------------------------------------------------------------------


def describe(config: Any, path: str = "") -> Iterator[Option]:
    """Every leaf of a section with its value, depth first, in the order of declaration."""
    hints = typing.get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value, name, meta = getattr(config, f.name), _join(path, f.name), f.metadata
        if meta.get("many"):
            names = tuple(s.plugin for s in value)
            known = ", ".join(available(meta["group"]))
            yield Option(name, tuple[str, ...], names, names, f"{meta['doc']} (known: {known})", live=True)
            for chosen in value:
                yield from describe(chosen.config, _join(path, chosen.plugin))
        elif isinstance(value, Selected):
            known = ", ".join(available(value.group))
            yield Option(_join(name, "plugin"), str, value.plugin, value.plugin, f"{meta['doc']} (known: {known})")
            yield from describe(value.config, name)
        elif dataclasses.is_dataclass(value):
            yield from describe(value, name)
        else:
            declared = {key: meta[key] for key in ("doc", "unit", "ge", "le", "choices", "live")}
            yield Option(name, hints[f.name], f.default, value, **declared)


def to_mapping(config: Any) -> dict[str, Any]:
    """The section as plain nested dicts and lists that `parse` reads back, e.g. for YAML."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("many"):
            out[f.name] = [s.plugin for s in value]
            out.update({s.plugin: to_mapping(s.config) for s in value})
        elif isinstance(value, Selected):
            out[f.name] = {"plugin": value.plugin, **to_mapping(value.config)}
        elif dataclasses.is_dataclass(value):
            out[f.name] = to_mapping(value)
        else:
            out[f.name] = list(value) if isinstance(value, tuple) else value
    return out
