# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The one configuration tree: read by the node as ROS parameters, by the command line as YAML, by tests as a dict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seg_perception.drift import DriftConfig
from seg_perception.files import shipped
from seg_perception.fusion import FusionConfig
from seg_perception.options import ConfigError, Selected, describe, option, parse, plugin, plugins, section, to_mapping
from seg_perception.selection import SelectionConfig
from seg_perception.smoothing import SmoothingConfig
from seg_perception.support import SupportConfig

__all__ = ["Config", "ConfigError", "describe", "load_config", "to_mapping"]


@dataclass(frozen=True)
class GraspingConfig:
    """Which grasps are planned, and when."""

    planners: tuple[Selected, ...] = plugins(
        "grasp_planners", ["antipodal"], "planners, all are asked, best grasps win"
    )
    when: str = option("stream", "plan for every frame, or only when asked", choices=("stream", "request"), live=True)
    max_per_object: int = option(3, "grasps kept per object", ge=0, le=100, live=True)
    budget: float = option(
        0.05, "planning time per frame of a stream; objects not reached say so; 0 = no limit", unit="s", ge=0, live=True
    )


@dataclass(frozen=True)
class TopicsConfig:
    """Input topics; relative names can be remapped."""

    color: str = option("color/image_raw", "color image")
    color_info: str = option("color/camera_info", "calibration of the color image")
    depth: str = option("depth/image_rect", "depth image")
    depth_info: str = option("depth/camera_info", "calibration of the depth image")
    ignore_mask: str = option("ignore_mask", "mono8, color resolution, nonzero = not an object (the robot itself)")


@dataclass(frozen=True)
class ColorConfig:
    """How color arrives."""

    transport: str = option("raw", "compressed subscribes <topic>/compressed", choices=("raw", "compressed"))


@dataclass(frozen=True)
class DepthConfig:
    """How depth arrives."""

    transport: str = option("raw", "subscribes <topic>/<transport>", choices=("raw", "compressedDepth", "compressed"))
    registered: str = option(
        "auto",
        "is depth in the color image's pixels; auto = if frame, size and K are the same; else it is reprojected",
        choices=("auto", "true", "false"),
    )
    extrinsic: tuple[float, ...] = option(
        (),
        "pose of the depth camera in the color camera's optical frame, x y z [m] qx qy qz qw, for depth that is "
        "reprojected; empty = from TF",
    )
    check_alignment: bool = option(True, "warn when edges of depth lie beside those of color")
    scale: float = option(0.0, "metres per unit of the depth image; 0 = by encoding", unit="m", ge=0, le=1)

    def __post_init__(self) -> None:
        if not any(self.extrinsic):
            object.__setattr__(self, "extrinsic", ())  # zeros say nothing either
            return
        length = sum(q * q for q in self.extrinsic[3:]) ** 0.5
        if len(self.extrinsic) != 7 or not abs(length - 1) < 0.01 or not all(map(math.isfinite, self.extrinsic)):
            raise ValueError(
                "extrinsic: expected x y z qx qy qz qw with a quaternion of length 1 (w last), "
                f"got {list(self.extrinsic)}"
            )


@dataclass(frozen=True)
class SyncConfig:
    """How color and depth are paired."""

    slop: float = option(0.02, "largest stamp difference of a pair", unit="s", ge=0, le=1, live=True)
    camera_info: str = option("color", "whose calibration is used for 3D", choices=("color", "depth"))


@dataclass(frozen=True)
class GravityConfig:
    """Which way is down; unknown = the support's normal, if there is a support."""

    frame: str = option("", "frame whose -z is down (REP 103), looked up in TF; empty = none")
    direction: tuple[float, float, float] = option(
        (0.0, 0.0, 0.0), "down in the camera's optical frame; zero = unknown"
    )


@dataclass(frozen=True)
class WorkspaceConfig:
    """The box that objects are taken from; no box while min equals max."""

    frame: str = option("", "frame of the box; empty = the frame of the 3D output", live=True)
    min: tuple[float, float, float] = option((0.0, 0.0, 0.0), "lower corner", unit="m", live=True)
    max: tuple[float, float, float] = option((0.0, 0.0, 0.0), "upper corner", unit="m", live=True)
    mode: str = option("flag", "flag sets in_workspace, drop leaves others out", choices=("flag", "drop"), live=True)

    def __post_init__(self) -> None:
        if any(low > high for low, high in zip(self.min, self.max, strict=True)):
            raise ValueError(f"expected min <= max, got min {list(self.min)} max {list(self.max)}")

    @property
    def is_set(self) -> bool:
        return self.min != self.max


@dataclass(frozen=True)
class CpuConfig:
    """The process's share of the computer; a runtime's threads are its backend's option."""

    affinity: tuple[int, ...] = option((), "cores to run on, e.g. [2, 3]; empty = all", ge=0, le=4095)
    threads: int = option(0, "threads of OpenCV; 0 = all usable cores but one", ge=0, le=256)


@dataclass(frozen=True)
class MoveItConfig:
    """The topic ~/collision_objects."""

    padding: float = option(0.0, "added to every side of an object's box", unit="m", ge=0, le=0.2, live=True)


@dataclass(frozen=True)
class ObjectsConfig:
    """The main message."""

    include_points: bool = option(False, "carry the point cloud inside ~/objects", live=True)


@dataclass(frozen=True)
class PointsConfig:
    """The object cloud."""

    max_per_object: int = option(5000, "points per object, evenly thinned above", ge=1, live=True)
    max_total: int = option(
        100000, "points of all objects, evenly thinned above; small objects keep theirs longest", ge=1, live=True
    )
    voxel: float = option(0.0, "grid to thin points to; 0 = all points", unit="m", ge=0, le=0.1, live=True)


@dataclass(frozen=True)
class SegmentOnceConfig:
    """The service ~/segment_once."""

    timeout: float = option(
        5.0, "wait for images when the request names no timeout", unit="s", ge=0.1, le=60, live=True
    )


@dataclass(frozen=True)
class MetricsConfig:
    """Prometheus metrics over HTTP. There is no authentication: beyond this machine only through a proxy that has."""

    port: int = option(0, "serve /metrics on this port; 0 = do not", ge=0, le=65535)
    address: str = option("127.0.0.1", "of the interface to serve on")


@dataclass(frozen=True)
class CaptureConfig:
    """Frames worth keeping, to MCAP files."""

    folder: str = option("", "where captures go; empty = there are none")
    automatic: bool = option(True, "keep uncertain, odd and drifting frames; else only those asked for", live=True)
    uncertain: tuple[float, float] = option(
        (0.25, 0.5), "a frame with an object's score between these is uncertain", live=True
    )
    max_per_minute: int = option(4, "automatic captures", ge=0, le=1000, live=True)
    max_disk: float = option(1000.0, "the oldest captures are deleted beyond this", unit="MB", ge=1, live=True)

    def __post_init__(self) -> None:
        low, high = self.uncertain
        if not low <= high:
            raise ValueError(f"uncertain: expected low <= high, got {[low, high]}")


@dataclass(frozen=True)
class Config:
    """Everything that can be set. Sections and leaves become ROS parameters by their dotted names."""

    segmenter: Selected = plugin("segmenters", "tabletop", "who finds the instances")
    support: SupportConfig = section(SupportConfig, "surfaces that objects stand on")
    fusion: FusionConfig = section(FusionConfig, "masks and depth to objects")
    tracker: Selected = plugin("trackers", "iou3d", "who gives identities over time")
    coast: float = option(
        0.0, "objects not found now are reported this long, without mask and 3D; 0 = never", unit="s", ge=0, live=True
    )
    smoothing: SmoothingConfig = section(SmoothingConfig, "3D of objects at rest, averaged")
    grasping: GraspingConfig = section(GraspingConfig, "grasps")
    selection: SelectionConfig = section(SelectionConfig, "which instances count")
    max_instances: int = option(100, "instances per frame, best scores first", ge=1, le=1000, live=True)

    topics: TopicsConfig = section(TopicsConfig, "input topics")
    color: ColorConfig = section(ColorConfig, "color input")
    depth: DepthConfig = section(DepthConfig, "depth input")
    sync: SyncConfig = section(SyncConfig, "pairing")
    input_reliability: str = option(
        "auto", "QoS of the inputs; auto reads what the publishers offer", choices=("auto", "best_effort", "reliable")
    )
    max_age: float = option(0.0, "frames older than this are dropped; 0 = never", unit="s", ge=0, live=True)
    target_frame: str = option("", "frame of all 3D output; empty = the camera's optical frame", live=True)
    tf_timeout: float = option(0.1, "wait for the transform at the image's stamp", unit="s", ge=0, le=5, live=True)
    gravity: GravityConfig = section(GravityConfig, "which way is down")
    workspace: WorkspaceConfig = section(WorkspaceConfig, "where objects are taken from")
    run: str = option("stream", "on_request subscribes only while a call waits", choices=("stream", "on_request"))
    autostart: bool = option(True, "configure and activate by itself, when no lifecycle manager does")
    history: int = option(
        4, "results kept for ~/get_grasps, those of the stream and those that calls returned, 8 MB each", ge=1, le=100
    )
    segment_once: SegmentOnceConfig = section(SegmentOnceConfig, "the service")
    moveit: MoveItConfig = section(MoveItConfig, "MoveIt's planning scene, where moveit_msgs is installed")
    objects: ObjectsConfig = section(ObjectsConfig, "the main message")
    points: PointsConfig = section(PointsConfig, "the object cloud")
    metrics: MetricsConfig = section(MetricsConfig, "numbers for Prometheus")
    capture: CaptureConfig = section(CaptureConfig, "frames kept for later")
    drift: DriftConfig = section(DriftConfig, "comparison with a reference")
    cpu: CpuConfig = section(CpuConfig, "the process's share of the computer")


Source = str | Path | Mapping[str, Any]
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")  # every node's parameters, never ours


def load_config(*sources: Source, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """The configuration from YAML files, shipped names ("tabletop") or dicts; later ones win, key by key.

    `overrides` are `"fusion.min_depth=0.2"` texts (values read as YAML) or a mapping of dotted names. A ROS parameter
    file (`/**: {ros__parameters: ...}`) is read too. Raises ConfigError with one line that names file, key and value.
    """
    tree: dict[str, Any] = {}
    for source in sources:
        tree = merge(tree, source if isinstance(source, Mapping) else read_yaml(source))
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_split, overrides)
    whole = tree
    for name, value in sorted(pairs, key=lambda pair: not pair[0].endswith(".plugin")):  # a plugin before its options
        whole = merge(whole, nest(name, value))
    try:
        return parse(Config, whole)
    except ConfigError as error:
        files = [str(source) for source in sources if not isinstance(source, Mapping)]
        if files and _refusal(tree) == str(error):  # the files' own fault, not an override's
            raise ConfigError(f"config {', '.join(repr(file) for file in files)}: {error}") from error
        raise


def _refusal(tree: Mapping[str, Any]) -> str:
    try:
        parse(Config, tree)
    except ConfigError as error:
        return str(error)
    return ""


def read_yaml(source: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, found as a path or as the name of a shipped one."""
    path = Path(source).expanduser()
    if not path.is_file() and path.parent == Path("."):
        try:
            path = shipped("config", path.name if path.suffix else f"{path.name}.yaml")
        except FileNotFoundError:
            known = ", ".join(sorted(p.stem for p in shipped("config").glob("*.yaml")))
            raise ConfigError(f"config '{source}': no such file, and no shipped one (known: {known})") from None
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"config '{source}': no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config '{source}': cannot be read: {error}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config '{source}': not valid YAML: {reason}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config '{source}': expected a mapping of keys, got {type(tree).__name__}")
    return _unwrap_ros(tree, source)


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; elsewhere the first one is lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i] and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, key by key; a section that names another plugin replaces the old one whole."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            other_plugin = "plugin" in value and value["plugin"] != old.get("plugin", value["plugin"])
            out[key] = dict(value) if other_plugin else merge(old, value)
        else:
            out[key] = value
    return out


def nest(name: str, value: Any) -> dict[str, Any]:
    """`nest("a.b", 1)` is `{"a": {"b": 1}}`; `module.path:Class` is one key."""
    head, _, rest = name.partition(".")
    if ":" in rest and ":" not in head:
        module, _, tail = rest.partition(":")
        cls, _, rest = tail.partition(".")
        return {head: {f"{module}:{cls}": nest(rest, value) if rest else value}}
    return {head: nest(rest, value) if rest else value}


def _split(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set '{text}': expected KEY=VALUE, e.g. fusion.min_depth=0.2")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set '{text}': the value is not valid YAML: {' '.join(str(error).split())}") from error


def _unwrap_ros(tree: dict[str, Any], source: str | Path) -> dict[str, Any]:
    if not any(isinstance(inner, dict) and "ros__parameters" in inner for inner in tree.values()):
        return tree
    if len(tree) > 1:
        listing = ", ".join(map(str, tree))
        raise ConfigError(f"config '{source}': has the parameters of several nodes ({listing}), expected those of one")
    out: dict[str, Any] = {}
    for name, value in (next(iter(tree.values()))["ros__parameters"] or {}).items():
        if str(name).partition(".")[0] not in ROS_OWN:
            out = merge(out, nest(str(name), value))
    return out
