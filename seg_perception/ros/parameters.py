# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration tree as ROS parameters: declared from it, checked by it, changed together or not at all."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from seg_perception.config import Config, ConfigError, describe, load_config, to_mapping
from seg_perception.options import Option, kind_text

CONFIG = "config"
CONFIG_DOC = "config files or shipped names, comma separated, later ones win, e.g. tabletop,realsense"
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")

TYPES = {
    bool: Parameter.Type.BOOL,
    int: Parameter.Type.INTEGER,
    float: Parameter.Type.DOUBLE,
    str: Parameter.Type.STRING,
}
ARRAYS = {
    bool: Parameter.Type.BOOL_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
    float: Parameter.Type.DOUBLE_ARRAY,
    str: Parameter.Type.STRING_ARRAY,
}


class Parameters:
    """Defaults < config files < what the user gave as parameters, at start or later.

    `is_configured` says whether options that are not live may change; `apply(config)` takes live changes in and may
    raise ConfigError to refuse them.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool], apply: Callable[[Config], None]) -> None:
        self._node = node
        self._is_configured = is_configured
        self._apply = apply
        self._given = _overrides(node)
        self._ignored: set[str] = set()
        self._mirroring = False
        self._options: dict[str, Option] = {}
        self.config = Config()
        files = self._given.pop(CONFIG, "")
        descriptor = ParameterDescriptor(description=CONFIG_DOC, additional_constraints="needs cleanup first")
        node.declare_parameter(CONFIG, str(files), descriptor, ignore_override=True)
        self._files = str(files)
        node.add_on_set_parameters_callback(self._check)
        if hasattr(node, "add_pre_set_parameters_callback"):  # not in Humble
            node.add_pre_set_parameters_callback(self._accommodate)
        self._mirror(self.config)
        try:
            self.load()
        except ConfigError:  # configure says it; until then the defaults can be looked at
            pass

    @property
    def wants_autostart(self) -> bool:
        """As given, also when the rest of the configuration cannot be read."""
        return bool(self._given.get("autostart", self.config.autostart))

    def load(self) -> Config:
        """The configuration that the parameters say, read anew. Raises ConfigError with one line."""
        self.config = self._read(self._files, self._given)
        self._mirror(self.config)
        return self.config

    def replace(self, section: str, values: Mapping[str, Any]) -> Config:
        """A configuration with a section replaced whole, not yet in use. Raises ConfigError."""
        given = {name: value for name, value in self._given.items() if not name.startswith(f"{section}.")}
        return self._read(self._files, {**given, **_flat(section, values)})

    def adopt(self, config: Config, section: str) -> None:
        """`config` is in use now: its section counts as given by the user."""
        given = {name: value for name, value in self._given.items() if not name.startswith(f"{section}.")}
        self._given = {**given, **_flat(section, to_mapping(config)[section])}
        self.config = config
        self._mirror(config)

    def _read(self, files: str, given: Mapping[str, Any]) -> Config:
        known = {name: value for name, value in given.items() if not self._is_foreign(name)}
        sources = [name.strip() for name in files.split(",") if name.strip()]
        return load_config(_default_plugins(), *sources, overrides=self._typed(known))

    def _typed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Texts of options that ROS has no type for, read as YAML."""
        out = dict(given)
        for name, value in given.items():
            option = self._options.get(name)
            if option is not None and _type_of(option) is None and isinstance(value, str):
                out[name] = yaml.safe_load(value)
        return out

    def _is_foreign(self, name: str) -> bool:
        """A parameter of somebody else in a file for all nodes. What looks like a misspelled one of ours is not."""
        ours = to_mapping(Config())
        head = name.partition(".")[0]
        if head in ours or difflib.get_close_matches(head, ours, n=1, cutoff=0.75):
            return False
        if name not in self._ignored:
            self._ignored.add(name)
            self._node.get_logger().warning(f"parameter '{name}' is not one of this node's: ignored")
        return True

    # -- changes -------------------------------------------------------------------------------------------------------

    def _accommodate(self, parameters: list[Parameter]) -> list[Parameter]:
        """Whole numbers for options that are not, so that `ros2 param set ... 1` does what it says."""
        return [self._accommodated(p) for p in parameters]

    def _accommodated(self, parameter: Parameter) -> Parameter:
        option = self._options.get(parameter.name)
        if option is None:
            return parameter
        wanted = _type_of(option)
        if wanted is Parameter.Type.DOUBLE and parameter.type_ is Parameter.Type.INTEGER:
            return Parameter(parameter.name, wanted, float(parameter.value))
        if wanted is Parameter.Type.DOUBLE_ARRAY and parameter.type_ is Parameter.Type.INTEGER_ARRAY:
            return Parameter(parameter.name, wanted, [float(v) for v in parameter.value])
        if wanted is Parameter.Type.STRING and parameter.type_ is Parameter.Type.BOOL:
            return Parameter(parameter.name, wanted, str(parameter.value).lower())
        return parameter

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        if self._mirroring:
            return SetParametersResult(successful=True)
        changed = {p.name: _plain(p) for p in parameters if p.name in self._options}
        files = next((str(p.value) for p in parameters if p.name == CONFIG), self._files)
        if not changed and files == self._files:
            return SetParametersResult(successful=True)  # not ours
        try:
            self._take(files, changed)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, files: str, changed: Mapping[str, Any]) -> None:
        """Makes all the changes, or raises ConfigError and makes none."""
        given = dict(self._given)
        for name in changed:
            if name.endswith(".plugin"):  # the options given for the old plugin say nothing about the new one
                section = name.removesuffix("plugin")
                given = {k: v for k, v in given.items() if not k.startswith(section)}
        given.update(changed)
        config = self._read(files, given)
        if self._is_configured():
            if files != self._files:
                raise ConfigError(f"{CONFIG}: cannot change while the node is configured; needs cleanup first")
            self._refuse_others_than_live(config)
            self._apply(config)
        self._files, self._given, self.config = files, given, config
        if self._options.keys() != {option.name for option in describe(config)}:
            self._soon(lambda: self._mirror(self.config))

    def _refuse_others_than_live(self, config: Config) -> None:
        before = {option.name: option for option in describe(self.config)}
        for option in describe(config):
            old = before.get(option.name)
            if old is not None and old.value != option.value and not option.live:
                raise ConfigError(f"{option.name}: cannot change while the node is configured; needs cleanup first")

    def _soon(self, action: Callable[[], None]) -> None:
        executor = self._node.executor
        if executor is None:
            action()
        else:
            executor.create_task(action)

    # -- the mirror ----------------------------------------------------------------------------------------------------

    def _mirror(self, config: Config) -> None:
        """Makes the declared parameters equal to the options of `config`."""
        options = {option.name: option for option in describe(config)}
        node = self._node
        self._mirroring = True
        try:
            for name in self._options.keys() - options.keys():
                node.undeclare_parameter(name)
            values = []
            for name, option in options.items():
                kind = _type_of(option) or Parameter.Type.STRING
                if not node.has_parameter(name):
                    node.declare_parameter(name, kind, _descriptor(option), ignore_override=True)
                value = _ros_value(option)
                if name not in self._options or _plain(node.get_parameter(name)) != value:
                    values.append(Parameter(name, kind, value))
            node.set_parameters_atomically(values)
        finally:
            self._mirroring = False
        self._options = options


def _default_plugins() -> dict[str, Any]:
    """The plugins that run when none is named, so that their options can be given without naming them."""
    sections = to_mapping(Config()).items()
    return {name: {"plugin": s["plugin"]} for name, s in sections if isinstance(s, dict) and "plugin" in s}


def _overrides(node: Node) -> dict[str, Any]:
    """What the command line, launch and parameter files say about this node, less what belongs to ROS itself."""
    return {
        name: _plain(parameter)
        for name, parameter in node._parameter_overrides.items()
        if not name.startswith(ROS_OWN) and parameter.type_ is not Parameter.Type.NOT_SET
    }


def _plain(parameter: Parameter) -> Any:
    value = parameter.value
    return list(value) if not isinstance(value, str | bool | int | float) and isinstance(value, Iterable) else value


def _flat(path: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out.update(_flat(f"{path}.{key}", value))
        else:
            out[f"{path}.{key}"] = value
    return out


def _type_of(option: Option) -> Parameter.Type | None:
    """ROS's type of an option; None = it has none and travels as YAML text."""
    if typing.get_origin(option.kind) is tuple:
        return ARRAYS.get(typing.get_args(option.kind)[0])
    return TYPES.get(option.kind)


def _ros_value(option: Option) -> Any:
    if _type_of(option) is None:
        return yaml.safe_dump(option.value, default_flow_style=True).strip().removesuffix("...").strip()
    return list(option.value) if isinstance(option.value, tuple) else option.value


def _descriptor(option: Option) -> ParameterDescriptor:
    unit = f" [{option.unit}]" if option.unit else ""
    notes = [f"one of {', '.join(map(str, option.choices))}"] if option.choices else []
    if _type_of(option) is None:
        notes.append(f"{kind_text(option.kind)} as YAML text")
    notes.append("live" if option.live else "needs cleanup first")
    descriptor = ParameterDescriptor(description=f"{option.doc}{unit}", additional_constraints="; ".join(notes))
    if option.ge is not None and option.le is not None:
        if option.kind is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(option.ge), to_value=float(option.le))
            ]
        elif option.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(option.ge), to_value=int(option.le), step=1)]
    return descriptor
