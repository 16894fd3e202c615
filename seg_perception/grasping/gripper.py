# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Gripper descriptions, jaws and cups: the few numbers a planner needs, from a file shipped or own, or a mapping."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seg_perception.files import shipped
from seg_perception.grasping.moveit_hand import MoveItHand

FOLDER = "config/grippers"


@dataclass(frozen=True, slots=True)
class Gripper:
    """A parallel-jaw gripper, metres in the grasp frame (+z approach, +y closing, x = y cross z).

    `stroke` largest distance between the pads; a finger is `finger_width` (x) by `finger_thickness` (y, outside of the
    pad) and reaches `finger_length` from the palm's face to its tip, which lies `tip_beyond_tcp` below the tool centre
    point; `palm_size` x, y, z. `friction` of the pads, `max_force` N; `moveit` for those who use MoveIt. Raises
    ValueError naming a number that cannot be.
    """

    name: str
    stroke: float
    finger_width: float
    finger_thickness: float
    finger_length: float
    tip_beyond_tcp: float
    palm_size: tuple[float, float, float]
    friction: float = 0.5
    max_force: float = 0.0
    moveit: MoveItHand | None = None

    def __post_init__(self) -> None:
        who = f"gripper '{self.name}'"
        size = self.palm_size
        if isinstance(size, str) or not hasattr(size, "__len__") or len(size) != 3:
            raise ValueError(f"{who}: palm_size: expected [x, y, z] in m, got {size!r}")
        object.__setattr__(self, "palm_size", tuple(_number(f"{who}: palm_size", v, 0.0, 1.0) for v in size))
        for key in ("stroke", "finger_width", "finger_thickness", "finger_length"):
            object.__setattr__(self, key, _number(f"{who}: {key}", getattr(self, key), 1e-4, 1.0))
        tip = _number(f"{who}: tip_beyond_tcp", self.tip_beyond_tcp, 0.0, self.finger_length)
        object.__setattr__(self, "tip_beyond_tcp", tip)
        object.__setattr__(self, "friction", _number(f"{who}: friction", self.friction, 0.01, 10.0, ""))
        object.__setattr__(self, "max_force", _number(f"{who}: max_force", self.max_force, 0.0, 1e5, " N"))
        object.__setattr__(self, "moveit", _moveit(who, self.moveit))


@dataclass(frozen=True, slots=True)
class SuctionCup:
    """A suction cup, metres; the grasp's origin is the contact, +z the approach.

    A lip of `cup_radius`, `cup_length` before a mount of `body_radius`; it bends by `max_tilt` rad to lie flat;
    `max_force` N it holds. Raises ValueError naming a number that cannot be.
    """

    name: str
    cup_radius: float
    cup_length: float
    body_radius: float
    max_tilt: float = 0.2
    max_force: float = 0.0
    moveit: MoveItHand | None = None

    def __post_init__(self) -> None:
        who = f"gripper '{self.name}'"
        for key in ("cup_radius", "cup_length", "body_radius"):
            object.__setattr__(self, key, _number(f"{who}: {key}", getattr(self, key), 1e-4, 1.0))
        object.__setattr__(self, "max_tilt", _number(f"{who}: max_tilt", self.max_tilt, 0.0, math.pi / 2, " rad"))
        object.__setattr__(self, "max_force", _number(f"{who}: max_force", self.max_force, 0.0, 1e5, " N"))
        object.__setattr__(self, "moveit", _moveit(who, self.moveit))


KINDS: dict[str, type[Gripper] | type[SuctionCup]] = {"parallel": Gripper, "suction": SuctionCup}


def load_jaws(source: str | Path | Mapping[str, Any] | Gripper | SuctionCup) -> Gripper:
    """The parallel jaws that `source` names or describes. Raises ValueError when it is something else."""
    gripper = load_gripper(source)
    if not isinstance(gripper, Gripper):
        raise ValueError(f"gripper '{gripper.name}': expected parallel jaws, got a suction cup")
    return gripper


def load_cup(source: str | Path | Mapping[str, Any] | Gripper | SuctionCup) -> SuctionCup:
    """The suction cup that `source` names or describes. Raises ValueError when it is something else."""
    gripper = load_gripper(source)
    if not isinstance(gripper, SuctionCup):
        raise ValueError(f"gripper '{gripper.name}': expected a suction cup (kind: suction), got parallel jaws")
    return gripper


def load_cups(source: Any) -> tuple[SuctionCup, ...]:
    """The cups to choose from that `source` names or describes. Raises ValueError when one is something else."""
    return tuple(load_cup(one) for one in several(source))


def load_grippers(source: Any) -> tuple[Gripper | SuctionCup, ...]:
    """The grippers to choose from that `source` names or describes."""
    return tuple(load_gripper(one) for one in several(source))


def several(source: Any) -> tuple[Any, ...]:
    """What `source` lists: a list, or names with commas between them; anything else is one gripper. Raises ValueError
    for an empty list."""
    if isinstance(source, str):
        return tuple(name.strip() for name in source.split(","))
    if not isinstance(source, list | tuple):
        return (source,)
    if not source:
        raise ValueError("gripper: expected a name, a path or a mapping, got an empty list")
    return tuple(source)


def load_gripper(source: str | Path | Mapping[str, Any] | Gripper | SuctionCup) -> Gripper | SuctionCup:
    """The gripper called `source` (shipped), in the file `source`, or described by the mapping `source`.

    Its `kind` is `parallel` (the default) or `suction`. Raises ValueError with one line: no such gripper (and which
    there are), what is missing, unknown or impossible.
    """
    if isinstance(source, Gripper | SuctionCup):
        return source
    if isinstance(source, Mapping):
        return _from_mapping(source, "gripper")
    if not isinstance(source, str | Path) or not str(source):
        raise ValueError(f"gripper: expected a name, a path or a mapping, got {source!r}")
    path = _find(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"gripper '{source}': cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"gripper '{source}': expected a mapping of keys, got {type(values).__name__}")
    return _from_mapping({"name": path.stem, **values}, f"gripper '{source}'")


def shipped_grippers(kind: str = "") -> list[str]:
    """Names of the grippers that ship with the package, all or those of a kind."""
    names = sorted(path.stem for path in shipped(FOLDER).glob("*.yaml"))
    return [name for name in names if not kind or isinstance(load_gripper(name), KINDS[kind])]


def _find(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise ValueError(f"gripper '{source}': no such file")
        return path
    try:
        return shipped(FOLDER, f"{source}.yaml")
    except FileNotFoundError:
        known = shipped_grippers()
        close = difflib.get_close_matches(str(source), known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(
            f"no gripper '{source}' (known: {', '.join(known)}, or a path to a .yaml file){hint}"
        ) from None


def _from_mapping(values: Mapping[str, Any], who: str) -> Gripper | SuctionCup:
    kind = values.get("kind", "parallel")
    if kind not in KINDS:
        raise ValueError(f"{who}: kind: expected {' or '.join(KINDS)}, got {kind!r}")
    made = KINDS[kind]
    fields = {f.name: f for f in dataclasses.fields(made)}
    given = {"name": "custom", **{key: value for key, value in values.items() if key != "kind"}}
    for key in given:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(fields)}"
            raise ValueError(f"{who}: unknown key '{key}'; {hint}")
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in given]
    if missing:
        raise ValueError(f"{who}: missing {', '.join(missing)}")
    return made(**given)


def _moveit(who: str, value: Any) -> MoveItHand | None:
    try:
        return None if value is None else MoveItHand.of(value)
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from error


def _number(what: str, value: Any, low: float, high: float, unit: str = " m") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what}: expected a number{' in' + unit if unit else ''}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what}: expected {low:g} to {high:g}{unit}, got {value:g}")
    return float(value)
