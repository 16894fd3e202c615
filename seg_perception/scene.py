# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the stages hand to each other: frames in, instances, objects, grasps and the scene out.

Everything is frozen and checked at birth. Units are SI; 3D values are in the camera's optical frame (REP 103:
x right, y down, z forward) of the frame they came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.grasp import Collision, Grasp, GraspKind, GraspPlan, GraspStatus
from seg_perception.masks import Masks

__all__ = [
    "DISTORTION_MODELS", "Collision", "Frame", "Grasp", "GraspKind", "GraspPlan", "GraspStatus", "Instances",
    "Intrinsics", "Object3D", "OrientedBox", "Plane", "Scene", "Status", "rigid_transform", "unit_vector",
]  # fmt: skip

DISTORTION_MODELS = {0: "none", 4: "equidistant", 5: "plumb_bob", 8: "rational_polynomial"}


class Status(IntEnum):
    """Why an object has 3D, or has not; numbers as in `SegmentedObject.msg`. Below 10 there is 3D."""

    OK = 0
    PARTIAL = 1
    NO_DEPTH_IMAGE = 10
    NO_VALID_DEPTH = 11
    TOO_FEW_POINTS = 12
    TOO_NEAR = 13
    TOO_FAR = 14
    DEPTH_MISALIGNED = 15
    BAD_INTRINSICS = 16
    NO_TRANSFORM = 17
    EMPTY_MASK = 18
    NOT_PROCESSED = 19

    @property
    def has_3d(self) -> bool:
        return self < Status.NO_DEPTH_IMAGE


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole calibration of one image, in pixels, with the lens distortion in OpenCV's order.

    `distortion` has 0, 4 (equidistant), 5 (plumb_bob) or 8 (rational) coefficients: the count decides the model,
    since drivers mislabel it. Raises ValueError for a size, focal length or count that cannot be.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "distortion", tuple(float(d) for d in self.distortion))
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"intrinsics: expected a size > 0, got {self.width}x{self.height}")
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not np.isfinite(numbers).all() or self.fx <= 0 or self.fy <= 0:
            raise ValueError(
                f"intrinsics: expected finite fx, fy > 0, got fx={self.fx} fy={self.fy} cx={self.cx} cy={self.cy} "
                f"distortion={list(self.distortion)} (an uncalibrated camera publishes zeros)"
            )
        if len(self.distortion) not in DISTORTION_MODELS:
            raise ValueError(f"intrinsics: expected 0, 4, 5 or 8 distortion coefficients, got {len(self.distortion)}")

    @property
    def is_distorted(self) -> bool:
        return any(self.distortion)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """K, (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One color image with the depth and calibration that belong to it.

    `color` (H, W, 3) uint8 RGB. `depth` (H, W) float32 metres along z, registered to the color image: NaN = not
    measured, -inf = nearer and +inf = farther than the sensor's range (REP 117), 0 and below = not measured; None = no
    depth. `intrinsics` None = unusable calibration. `withheld` says why 3D must not be computed although the images
    are there. `ignore` (H, W) bool, True = never part of an object (the robot). `gravity` (3,) unit, camera frame.
    `T_fixed_camera` (4, 4) puts camera points into a frame that does not move with the camera (the robot's base, a
    map), at this stamp; None = unknown.
    """

    color: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    intrinsics: Intrinsics | None = None
    frame_id: str = "camera_color_optical_frame"
    stamp_ns: int = 0
    ignore: NDArray[np.bool_] | None = None
    gravity: NDArray[np.float64] | None = None
    withheld: Status | None = None
    withheld_text: str = ""
    T_fixed_camera: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.color.ndim != 3 or self.color.shape[2] != 3 or self.color.dtype != np.uint8:
            raise ValueError(f"color: expected (H, W, 3) uint8 RGB, got {self.color.shape} {self.color.dtype}")
        if self.depth is not None and (self.depth.shape != self.color.shape[:2] or self.depth.dtype != np.float32):
            raise ValueError(
                f"depth: expected {self.color.shape[:2]} float32 metres like the color image, "
                f"got {self.depth.shape} {self.depth.dtype}"
            )
        for name in ("color", "depth"):  # a slice such as bgr[..., ::-1] is as good; kernels want it in one piece
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))
        size = (self.width, self.height)
        if self.intrinsics is not None and (self.intrinsics.width, self.intrinsics.height) != size:
            raise ValueError(
                f"intrinsics: for a {self.intrinsics.width}x{self.intrinsics.height} image, "
                f"but the color image is {self.width}x{self.height}"
            )
        if self.ignore is not None and self.ignore.shape != self.color.shape[:2]:
            raise ValueError(f"ignore: expected {self.color.shape[:2]} like the color image, got {self.ignore.shape}")
        if self.gravity is not None:
            object.__setattr__(self, "gravity", unit_vector("gravity", self.gravity))
        if self.T_fixed_camera is not None:
            object.__setattr__(self, "T_fixed_camera", rigid_transform("T_fixed_camera", self.T_fixed_camera))

    @property
    def height(self) -> int:
        return self.color.shape[0]

    @property
    def width(self) -> int:
        return self.color.shape[1]

    @property
    def no_3d(self) -> tuple[Status, str] | None:
        """Why this frame cannot give 3D, as a status and a line; None if it can."""
        if self.withheld is not None:
            return self.withheld, self.withheld_text
        if self.depth is None:
            return Status.NO_DEPTH_IMAGE, "no depth image came with this color image"
        if self.intrinsics is None:
            return Status.BAD_INTRINSICS, "no usable calibration (camera_info)"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A plane `normal . p + d = 0`: `normal` (3,) unit, pointing up from the support; `d` metres."""

    normal: NDArray[np.float64]
    d: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", unit_vector("plane normal", self.normal))
        object.__setattr__(self, "d", float(self.d))

    def heights(self, points: ArrayLike) -> NDArray[np.float64]:
        """Signed distance of `points` (..., 3) m above the plane, (...)."""
        return np.asarray(points) @ self.normal + self.d

    @property
    def coefficients(self) -> NDArray[np.float64]:
        """a, b, c, d of a x + b y + c z + d = 0, (4,)."""
        return np.append(self.normal, self.d)

    def transformed(self, T_target_source: NDArray[np.float64]) -> Plane:
        normal = T_target_source[:3, :3] @ self.normal
        return Plane(normal, self.d - float(normal @ T_target_source[:3, 3]))


# Of Instances, until somebody says it.
UNKNOWN = (("support_ids", np.int32(-1)), ("mask_scores", np.float32("nan")), ("track_ids", np.int64(0)))


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """What a segmenter found in one image: N parallel rows, indexable like an array.

    `boxes` (N, 4) float32 px `x_min, y_min, x_max, y_max` (pixel edges, maximum exclusive), `scores` (N,) float32 in
    0..1, `class_ids` (N,) int32 with -1 = class-agnostic, `class_names` one per row, `masks` N masks at the color
    image's resolution. `supports` are surfaces that the segmenter saw objects stand on; `support_ids` (N,) int32 says
    which one carries each row, -1 = unknown. `mask_scores` (N,) float32 are IoUs that a network predicts for its masks,
    beside the scores of who found them; NaN = none. `track_ids` (N,) int64 > 0 are identities that the segmenter itself
    remembers, 0 = none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    class_names: tuple[str, ...]
    masks: Masks
    supports: tuple[Plane, ...] = ()
    support_ids: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    mask_scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    track_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    dropped: int = 0  # instances over max_instances
    seconds: float = 0.0  # s, time the segmenter took

    def __post_init__(self) -> None:
        n, supported = len(self.masks), len(self.support_ids) > 0
        for name, unknown in UNKNOWN:
            if len(getattr(self, name)) == 0 and n:
                object.__setattr__(self, name, unknown.repeat(n))
        rows = ("scores", "class_ids", "support_ids", "mask_scores", "track_ids")
        for name, shape in (("boxes", (n, 4)), *((name, (n,)) for name in rows)):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: expected {shape} for {n} masks, got {getattr(self, name).shape}")
        if len(self.class_names) != n:
            raise ValueError(f"class_names: expected {n} for {n} masks, got {len(self.class_names)}")
        if supported and int(self.support_ids.max()) >= len(self.supports):
            raise ValueError(f"support_ids: {int(self.support_ids.max())}, but there are {len(self.supports)} supports")

    @classmethod
    def empty(cls, height: int, width: int) -> Instances:
        """No instance in an image of that size."""
        return cls.of(Masks.empty(height, width), np.empty(0), np.empty(0))

    @classmethod
    def of(
        cls,
        masks: Masks,
        scores: ArrayLike | None = None,
        class_ids: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        boxes: ArrayLike | None = None,
        **more: Any,
    ) -> Instances:
        """Instances from masks; what is left out is score 1, class -1 "object", and the masks' tight boxes."""
        n = len(masks)
        ids = np.full(n, -1, np.int32) if class_ids is None else np.asarray(class_ids).astype(np.int32)
        names = tuple("object" if c < 0 else f"class_{c}" for c in ids) if class_names is None else tuple(class_names)
        return cls(
            boxes=masks.boxes if boxes is None else np.asarray(boxes, np.float32).reshape(-1, 4),
            scores=np.ones(n, np.float32) if scores is None else np.asarray(scores, np.float32),
            class_ids=ids,
            class_names=names,
            masks=masks,
            **more,
        )

    @classmethod
    def from_masks(
        cls,
        dense_masks: ArrayLike,
        class_ids: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Instances:
        """Instances from masks made elsewhere: `dense_masks` (N, H, W), nonzero = object."""
        return cls.of(Masks.from_dense(dense_masks), scores, class_ids, class_names)

    def __len__(self) -> int:
        return len(self.masks)

    def timed(self, seconds: float, dropped: int) -> Instances:
        """The same, found in `seconds`; `dropped` were over the limit."""
        new = copy(self)  # not `replace`, which would check all rows again
        object.__setattr__(new, "seconds", seconds)
        object.__setattr__(new, "dropped", dropped)
        return new

    def __getitem__(self, index: Any) -> Instances:
        """The rows at `index`: a slice, a boolean or an integer array."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        return Instances(
            self.boxes[rows],
            self.scores[rows],
            self.class_ids[rows],
            tuple(self.class_names[i] for i in rows),
            self.masks[rows],
            self.supports,
            self.support_ids[rows],
            self.mask_scores[rows],
            self.track_ids[rows],
            self.dropped,
            self.seconds,
        )


@dataclass(frozen=True, slots=True, eq=False)
class OrientedBox:
    """A box: `T_camera_box` (4, 4) puts its centre and axes into the camera frame, `size` (3,) m full extents."""

    T_camera_box: NDArray[np.float64]
    size: NDArray[np.float64]

    @property
    def corners(self) -> NDArray[np.float64]:
        """(8, 3) m, camera frame; bit 0 of the index is +x, bit 1 +y, bit 2 +z."""
        signs = (np.arange(8)[:, None] >> np.arange(3) & 1) - 0.5
        return (signs * self.size) @ self.T_camera_box[:3, :3].T + self.T_camera_box[:3, 3]


@dataclass(frozen=True, slots=True, eq=False)
class Object3D:
    """One instance in 3D, camera frame. Without 3D (`status` says why) points are empty and centroid is NaN.

    `points` (M, 3) float32 m, `colors` (M, 3) uint8 RGB, `centroid` (3,) m mean of what is seen,
    `covariance` (3, 3) m^2 of the centroid, `box` oriented, z along the support's normal where there is one;
    `box_completed`: it was extended down to the support. `height_above_support` m of the object's top, NaN = no
    support. `valid_depth_ratio` 0..1, mask pixels with usable depth. `occluded_ratio` 0..1 of the outline, NaN =
    unknown.
    """

    status: Status
    status_text: str = ""
    points: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 3), np.float32))
    colors: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 3), np.uint8))
    centroid: NDArray[np.float64] = field(default_factory=lambda: np.full(3, np.nan))
    covariance: NDArray[np.float64] = field(default_factory=lambda: np.full((3, 3), np.nan))
    box: OrientedBox = field(default_factory=lambda: OrientedBox(np.eye(4), np.zeros(3)))
    box_completed: bool = False
    support: Plane | None = None
    height_above_support: float = float("nan")
    valid_depth_ratio: float = 0.0
    touches_border: bool = False
    occluded_ratio: float = float("nan")
    id: int = 0
    time_since_seen: float = 0.0  # s; above 0: a track that was not found in this frame, its mask is empty
    grasps: tuple[Grasp, ...] = ()
    grasp_status: GraspStatus = GraspStatus.NOT_REQUESTED
    grasp_text: str = ""

    def changed(self, **values: Any) -> Object3D:
        """`dataclasses.replace(self, **values)` in a seventh of the time: each frame changes each object."""
        new = object.__new__(Object3D)
        for set_slot, value in zip(OBJECT_SETTERS, OBJECT_VALUES(self), strict=True):
            set_slot(new, value)
        for name, value in values.items():
            object.__setattr__(new, name, value)
        return new


OBJECT_VALUES = attrgetter(*Object3D.__slots__)
OBJECT_SETTERS = tuple(vars(Object3D)[name].__set__ for name in Object3D.__slots__)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Everything about one frame: `objects[i]` belongs to row i of `instances`.

    `support` is the surface most objects stand on, `timings` maps stages to seconds.
    """

    frame: Frame
    instances: Instances
    objects: tuple[Object3D, ...]
    support: Plane | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    model: str = ""

    def __post_init__(self) -> None:
        if len(self.objects) != len(self.instances):
            raise ValueError(f"scene: {len(self.objects)} objects for {len(self.instances)} instances")

    def __len__(self) -> int:
        return len(self.objects)

    def __iter__(self) -> Iterator[Object3D]:
        return iter(self.objects)

    @property
    def points(self) -> NDArray[np.float32]:
        """All objects' points in one array, ordered by object, (M, 3) m."""
        return np.concatenate([np.empty((0, 3), np.float32), *(o.points for o in self.objects)])


def unit_vector(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """`value` (3,) scaled to length 1. Raises ValueError naming it when it has no direction."""
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected 3 numbers with a direction, got {value!r}") from None
    length = float(np.linalg.norm(vector)) if vector.shape == (3,) else float("nan")
    if not np.isfinite(length) or length < 1e-9:
        raise ValueError(f"{name}: expected 3 numbers with a direction, got {vector.tolist()}")
    return vector / length


def rigid_transform(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """`value` (4, 4) as float64. Raises ValueError naming it when it is not a rotation and a translation."""
    T = np.asarray(value, np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise ValueError(f"{name}: expected (4, 4) finite numbers, got {T.tolist()}")
    if np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() > 1e-3 or np.linalg.det(T[:3, :3]) < 0:
        raise ValueError(f"{name}: expected a rotation in the upper left, got {T[:3, :3].tolist()}")
    if not np.allclose(T[3], [0, 0, 0, 1]):
        raise ValueError(f"{name}: expected a last row 0 0 0 1, got {T[3].tolist()}")
    return T
