# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes as messages: what a consumer reads after real serialization, in metres and pixels."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion
from numpy.testing import assert_allclose, assert_array_equal
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from seg_perception.msg import SegmentedObject, SegmentedObjectArray
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from seg_perception.config import PointsConfig, load_config
from seg_perception.geometry import matrix_from_quaternion, transform
from seg_perception.masks import Masks
from seg_perception.ros.markers import Markers
from seg_perception.ros.messages import (
    class_image,
    cloud_message,
    grasp_poses,
    label_image,
    label_message,
    main_message,
    masks_from_message,
    objects_message,
    points_of,
    scene_cloud_message,
    thin_clouds,
)
from seg_perception.ros.poses import matrix_from_pose, pose_from_matrix, quaternions_of, transform_message
from seg_perception.scene import (
    Collision,
    Frame,
    Grasp,
    GraspKind,
    GraspStatus,
    Instances,
    Intrinsics,
    Object3D,
    OrientedBox,
    Plane,
    Scene,
    Status,
)

H, W = 60, 80
STAMP = Time(sec=1_700_000_000, nanosec=7)
HEADER = Header(stamp=STAMP, frame_id="base")
# The camera looks along the base's x: base x = camera z, base y = - camera x, base z = - camera y.
R_BASE_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
T_BASE_CAMERA = transform(R_BASE_CAMERA, [0.1, 0.2, 0.5])


def base(points: Any) -> np.ndarray:
    """Camera points in the base, written out."""
    x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
    return np.stack([z + 0.1, -x + 0.2, -y + 0.5], axis=-1)


def solid(center: list[float], object_id: int, count: int, grasps: int = 1) -> Object3D:
    """An object at `center` m of the camera, 0.06 x 0.04 x 0.10 m, its box's z up (camera -y), grasped from above."""
    rng = np.random.default_rng(object_id)
    up_box = transform(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]]), center)
    down = transform(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]), np.subtract(center, [0, 0.03, 0]))
    grasp = Grasp(
        T_camera_grasp=down,
        width=0.055,
        score=0.8,
        kind=GraspKind.PARALLEL_JAW,
        planner="top_down",
        gripper="robotiq_2f_85",
        object_width=0.04,
        pregrasp_distance=0.12,
        retreat_direction=np.array([0.0, -1.0, 0.0]),
        retreat_distance=0.15,
        max_force=20.0,
        contacts=np.add(center, [[0.0, -0.03, 0.02], [0.0, -0.03, -0.02]]),
        normals=np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]),
        collision=Collision.FREE,
        clearance=0.01,
    )
    return Object3D(
        Status.OK,
        points=(rng.uniform(-0.03, 0.03, (count, 3)) + center).astype(np.float32),
        colors=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        centroid=np.array(center),
        covariance=np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]]) * 1e-6,
        box=OrientedBox(up_box, np.array([0.06, 0.04, 0.10])),
        box_completed=True,
        height_above_support=0.10,
        valid_depth_ratio=0.95,
        occluded_ratio=0.25,
        id=object_id,
        grasps=(grasp,) * grasps,
        grasp_status=GraspStatus.FOUND,
    )


def make_scene() -> Scene:
    """Five rows, not in order of score: two solids that overlap in the image, two without 3D, one empty mask."""
    masks = np.zeros((5, H, W), bool)
    masks[0, 10:30, 10:40] = True
    masks[0, 15:20, 20:30] = False  # a hole
    masks[1, 20:50, 30:60] = True  # nearer than row 0, lower score
    masks[2, 5:15, 60:80] = True
    masks[3, 10:25, 70:80] = True  # overlaps row 2, higher score
    objects = (
        solid([0.02, 0.30, 1.0], 7, 30),
        solid([-0.05, 0.35, 0.8], 4_000_000_000, 50, grasps=2),
        Object3D(Status.NO_VALID_DEPTH, "no depth under the mask", id=9, touches_border=True),
        Object3D(Status.TOO_FAR, "at 3.1 m", id=10, grasp_status=GraspStatus.NO_3D, grasp_text="no 3D: TOO_FAR"),
        Object3D(Status.EMPTY_MASK, "no pixel", id=11),
    )
    instances = replace(
        Instances.of(
            Masks.from_dense(masks), [0.9, 0.7, 0.5, 0.6, 0.1], [2, -1, 0, 2, -1], ["cup", "object", "box", "cup", ""]
        ),
        dropped=3,
    )
    depth = np.full((H, W), np.nan, np.float32)
    depth[10:30, 10:40] = 1.0
    depth[0, :3] = [np.inf, -np.inf, 0.0]
    color = np.arange(H * W * 3, dtype=np.uint32).reshape(H, W, 3).astype(np.uint8)
    frame = Frame(color, depth, Intrinsics(W, H, 100.0, 90.0, 40.0, 30.0), "cam", gravity=np.array([0.0, 1.0, 0.0]))
    support = Plane(np.array([0.0, -1.0, 0.0]), 0.5)  # camera y = 0.5 is base z = 0
    timings = {"segment": 0.02, "support": 0.001, "fuse": 0.002, "track": 0.003, "grasp": 0.004}
    return Scene(frame, instances, objects, support, timings, "tabletop")


ORDER = [0, 1, 3, 2, 4]  # rows by descending score


def over_the_wire(message: Any) -> Any:
    return deserialize_message(serialize_message(message), type(message))


def make_message(T: np.ndarray | None = T_BASE_CAMERA, **options: Any) -> SegmentedObjectArray:
    info = CameraInfo(width=W, height=H)
    return over_the_wire(
        objects_message(make_scene(), HEADER, "cam", T, info, sequence=5, depth_delay=-0.004, **options)
    )


def xyz(value: Any) -> np.ndarray:
    return np.array([value.x, value.y, value.z])


# -- the main message ------------------------------------------------------------------------------------------------


def test_what_holds_for_the_whole_message() -> None:
    msg = make_message(wait=0.011)
    assert msg.header == HEADER
    assert msg.image_frame_id == "cam"
    assert (msg.camera_info.width, msg.sequence, msg.model, msg.dropped_instances) == (W, 5, "tabletop", 3)
    assert msg.depth_delay == -0.004
    assert_allclose(msg.timings, [0.011, 0.02, 0.006, 0.004])
    assert msg.has_support
    assert_allclose(msg.support, [0, 0, 1, 0], atol=1e-12)
    assert_allclose(xyz(msg.gravity), [0, 0, -1], atol=1e-12)
    q = msg.image_to_header.rotation
    assert_allclose(matrix_from_quaternion([q.x, q.y, q.z, q.w]), R_BASE_CAMERA, atol=1e-12)
    assert_allclose(xyz(msg.image_to_header.translation), [0.1, 0.2, 0.5])
    assert len(msg.points.data) == 0


def test_instances_are_ordered_by_score_and_labelled_in_that_order() -> None:
    msg = make_message(in_workspace=[True, False, True, True, False], ages=[1, 2, 3, 4, 5])
    assert [o.label for o in msg.objects] == [1, 2, 3, 4, 5]
    assert [o.id for o in msg.objects] == [7, 4_000_000_000, 10, 9, 11]
    assert_allclose([o.score for o in msg.objects], [0.9, 0.7, 0.6, 0.5, 0.1], rtol=1e-6)
    assert [o.class_id for o in msg.objects] == [2, -1, 2, 0, -1]
    assert [o.class_name for o in msg.objects] == ["cup", "object", "cup", "box", "object"]
    assert [o.status for o in msg.objects] == [0, 0, 14, 11, 18]
    assert [o.status_text for o in msg.objects] == ["", "", "at 3.1 m", "no depth under the mask", "no pixel"]
    assert [o.in_workspace for o in msg.objects] == [True, False, True, True, False]
    assert [o.age for o in msg.objects] == [1, 2, 4, 3, 5]
    assert [o.touches_border for o in msg.objects] == [False, False, False, True, False]
    assert_array_equal(msg.objects[1].box, [30, 20, 60, 50])
    assert_allclose(msg.objects[0].valid_depth_ratio, 0.95)
    assert [o.grasp_status for o in msg.objects] == [1, 1, 3, 0, 0]
    assert msg.objects[2].grasp_text == "no 3D: TOO_FAR"
    assert all(o.in_workspace and o.age == 1 for o in make_message().objects)


def test_masks_arrive_pixel_for_pixel() -> None:
    msg = make_message()
    scene = make_scene()
    assert_array_equal(masks_from_message(msg).dense(), scene.instances.masks.dense()[ORDER])
    for obj, dense in zip(msg.objects, scene.instances.masks.dense()[ORDER], strict=True):
        roi, counts = obj.mask.roi, list(obj.mask.counts)
        # As the comment in InstanceMask.msg tells a consumer to decode it.
        runs = np.repeat(np.arange(len(counts)) % 2, counts).reshape(roi.height, roi.width)
        assert_array_equal(
            runs, dense[roi.y_offset : roi.y_offset + roi.height, roi.x_offset : roi.x_offset + roi.width]
        )
        assert obj.mask.area == dense.sum()
        assert (obj.mask.image_width, obj.mask.image_height, roi.do_rectify) == (W, H, False)
    assert list(msg.objects[4].mask.counts) == []
    empty = objects_message(nothing(), HEADER, "cam", T_BASE_CAMERA, CameraInfo(width=W, height=H))
    assert masks_from_message(over_the_wire(empty)).dense().shape == (0, H, W)


def nothing() -> Scene:
    return Scene(make_scene().frame, Instances.empty(H, W), ())


def test_3d_is_in_the_header_frame() -> None:
    scene, msg = make_scene(), make_message()
    for row, obj in ((0, msg.objects[0]), (1, msg.objects[1])):
        source = scene.objects[row]
        assert_allclose(xyz(obj.centroid), base(source.centroid), atol=1e-12)
        # base (x, y, z) = camera (z, -x, -y), so var(base x) = var(camera z), cov(base x, y) = -cov(camera z, x) ...
        expected = np.array([[3.0, -0.2, -0.3], [-0.2, 1.0, 0.1], [-0.3, 0.1, 2.0]]) * 1e-6
        assert_allclose(obj.centroid_covariance.reshape(3, 3), expected, atol=1e-15)
        T = matrix_from_pose(obj.box_pose)
        assert_allclose(T[:3, 2], [0, 0, 1], atol=1e-12)  # up on the support
        assert_allclose(xyz(obj.box_size), [0.06, 0.04, 0.10])
        corners = (np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) - 0.5) * xyz(obj.box_size)
        assert_allclose(corners @ T[:3, :3].T + T[:3, 3], base(source.box.corners), atol=1e-12)
        assert_allclose(obj.height_above_support, 0.10, rtol=1e-6)
        assert obj.box_completed
        assert obj.occluded_ratio == 0.25
        assert obj.time_since_seen == 0.0
    assert not msg.objects[2].box_completed


def test_grasps_are_in_the_header_frame() -> None:
    msg = make_message()
    first = msg.objects[0].grasps[0]
    T = matrix_from_pose(first.pose)
    assert_allclose(T[:3, 3], [1.1, 0.18, 0.23], atol=1e-12)
    assert_allclose(T[:3, 2], [0, 0, -1], atol=1e-12)  # approach: down
    assert_allclose(T[:3, 1], [-1, 0, 0], atol=1e-12)  # closing: the camera's -z
    pregrasp = matrix_from_pose(first.pregrasp_pose)
    assert_allclose(pregrasp[:3, 3], [1.1, 0.18, 0.35], atol=1e-12)  # 0.12 m above
    assert_allclose(pregrasp[:3, :3], T[:3, :3], atol=1e-12)
    assert_allclose(xyz(first.retreat_direction), [0, 0, 1], atol=1e-12)
    assert_allclose([xyz(p) for p in first.contacts], [[1.12, 0.18, 0.23], [1.08, 0.18, 0.23]], atol=1e-12)
    assert_allclose([xyz(n) for n in first.normals], [[1, 0, 0], [-1, 0, 0]], atol=1e-12)
    numbers = (first.width, first.object_width, first.retreat_distance, first.score, first.max_force, first.clearance)
    assert_allclose(numbers, (0.055, 0.04, 0.15, 0.8, 20.0, 0.01), rtol=1e-6)
    assert (first.planner, first.gripper, first.kind, first.collision) == ("top_down", "robotiq_2f_85", 1, 1)
    assert [(g.object_id, g.rank) for g in msg.objects[1].grasps] == [(4_000_000_000, 0), (4_000_000_000, 1)]
    assert [len(o.grasps) for o in msg.objects] == [1, 2, 0, 0, 0]


NAN_WITHOUT_3D = (
    r"\.centroid\.[xyz]|\.centroid_covariance\[\d\]|\.box_pose\.position\.[xyz]|\.height_above_support|\.occluded_ratio"
)


def floats(message: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a message with its path; checks quaternions on the way."""
    if isinstance(message, Quaternion):
        assert abs(np.linalg.norm([message.x, message.y, message.z, message.w]) - 1) < 1e-9, path
    if hasattr(message, "get_fields_and_field_types"):
        for name in message.get_fields_and_field_types():
            yield from floats(getattr(message, name), f"{path}.{name}")
    elif isinstance(message, np.ndarray | list):
        for i, value in enumerate(message):
            yield from floats(value, f"{path}[{i}]")
    elif isinstance(message, float | np.floating):
        yield path, float(message)


def test_only_documented_fields_are_nan() -> None:
    msg = make_message(include_points=True)
    nan = {path for path, value in floats(msg) if not np.isfinite(value)}
    assert sum(path.endswith(".mask_score") for path in nan) == 5  # this segmenter predicts none
    for path in (path for path in nan if not path.endswith(".mask_score")):
        index = int(re.match(r"\.objects\[(\d+)\]", path)[1])
        assert index >= 2, f"{path} is not finite, but object {index} has 3D"
        assert re.search(f"(?:{NAN_WITHOUT_3D})$", path), f"{path} is not finite and not documented to be"
    assert sum(".centroid." in path for path in nan) == 3 * 3  # the three without 3D, and there all of it
    assert all(xyz(obj.box_size).tolist() == [0, 0, 0] for obj in msg.objects[2:])


def test_without_a_transform_3d_is_withheld_and_masks_go_out() -> None:
    msg = make_message(None, include_points=True)
    assert [o.status for o in msg.objects] == [17, 17, 14, 11, 18]  # other reasons stay
    assert msg.objects[0].status_text == "no transform to base at this stamp"
    assert np.isnan(xyz(msg.objects[0].centroid)).all()
    assert np.isnan(xyz(msg.image_to_header.translation)).all()
    assert [len(o.grasps) for o in msg.objects] == [0] * 5
    assert all(o.grasp_status != SegmentedObject.GRASPS_FOUND for o in msg.objects)
    assert (msg.points.width, sum(o.point_count for o in msg.objects), msg.has_support) == (0, 0, False)
    assert_array_equal(masks_from_message(msg).dense(), make_scene().instances.masks.dense()[ORDER])


def test_every_field_has_the_type_that_strict_distributions_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older distributions (and ROS_PYTHON_CHECK_FIELDS=1) assert on every assignment."""
    checked = [m for name, m in list(sys.modules.items()) if ".msg._" in name and hasattr(m, "ros_python_check_fields")]
    assert len(checked) > 10
    for module in checked:
        monkeypatch.setattr(module, "ros_python_check_fields", "1")
    with pytest.raises(AssertionError):
        SegmentedObject().id = np.int64(3)
    scene = make_scene()
    msg = objects_message(scene, HEADER, "cam", T_BASE_CAMERA, CameraInfo(), include_points=True, ages=np.arange(5))
    Markers().update(msg)
    grasp_poses(msg, scene)
    scene_cloud_message(scene.frame, label_image(scene), HEADER, T_BASE_CAMERA)
    label_message(scene, HEADER)
    reassign(msg)
    reassign(objects_message(scene, HEADER, "cam", None))
    assert len(serialize_message(msg)) > 1000


def reassign(message: Any) -> None:
    """Sets every field to what it is, checked: ours are filled past the checks."""
    message._check_fields = True
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        setattr(message, name, value)
        for part in value if isinstance(value, list | np.ndarray) else [value]:
            if hasattr(part, "get_fields_and_field_types"):
                reassign(part)


@pytest.mark.parametrize("include_points", [False, True])
@pytest.mark.parametrize("T", [None, T_BASE_CAMERA], ids=["unknown", "known"])
@pytest.mark.parametrize("scene", [make_scene(), nothing()], ids=["five", "none"])
def test_the_bytes_are_those_of_the_message(scene: Scene, T: np.ndarray | None, include_points: bool) -> None:
    for k in range(9):  # lengths of texts and sequences move all that follows them
        header = Header(stamp=STAMP, frame_id="bäse"[: k % 5])
        info = CameraInfo(width=W, height=H, distortion_model="plumb_bob"[:k], d=[0.1] * (k % 4))
        named = replace(scene, model="m" * k)
        main = main_message(named, header, "cam", T, info, sequence=5, wait=0.01, include_points=include_points)
        made, written = main.message(), main.serialized()
        slow = serialize_message(made)
        assert len(written) == len(slow)
        read = [repr(deserialize_message(blob, SegmentedObjectArray)) for blob in (written, slow)]
        assert read[0] == read[1]  # as text, where NaN is NaN
        assert repr(main.message()) == repr(made)  # nothing was left changed


def test_bytes_that_the_middleware_does_not_read_are_noticed(monkeypatch) -> None:
    main = main_message(make_scene(), HEADER, "cam", T_BASE_CAMERA)
    assert main.reads_alike()
    written = main.serialized()
    for wrong in (written[:-8] + b"\1" * 8, written[:40], b""):
        monkeypatch.setattr(type(main), "serialized", lambda self, wrong=wrong: wrong)
        assert not main.reads_alike()


# -- images ----------------------------------------------------------------------------------------------------------


def test_label_image_gives_shared_pixels_to_the_nearer_else_to_the_higher_score() -> None:
    labels = label_image(make_scene())
    assert labels.dtype == np.uint16
    assert labels[25, 35] == 2  # rows 0 and 1 overlap: row 1 is nearer, although it scores less
    assert labels[12, 12] == 1
    assert labels[17, 25] == 0  # the hole
    assert labels[12, 75] == 3  # rows 2 and 3, both without 3D: row 3 scores more
    assert labels[7, 75] == 4
    assert labels[55, 5] == 0
    for label, area in ((1, 20 * 30 - 50 - 10 * 10), (2, 900), (3, 150), (4, 200 - 50), (5, 0)):
        assert (labels == label).sum() == area


def test_class_image() -> None:
    scene = make_scene()
    classes = class_image(scene, label_image(scene))
    assert classes.dtype == np.uint16
    assert (classes[12, 12], classes[25, 35], classes[12, 75], classes[7, 75], classes[55, 5]) == (3, 65535, 3, 1, 0)


@pytest.mark.parametrize("scene", [make_scene(), nothing()], ids=["five", "none"])
def test_the_label_image_as_a_message(scene: Scene) -> None:
    msg = over_the_wire(label_message(scene, HEADER))
    assert (msg.header, msg.height, msg.width, msg.encoding, msg.step) == (HEADER, H, W, "16UC1", 2 * W)
    assert_array_equal(np.frombuffer(msg.data, np.uint16).reshape(H, W), label_image(scene))


# -- clouds ----------------------------------------------------------------------------------------------------------


def table(cloud: PointCloud2) -> np.ndarray:
    """A cloud as its fields describe it."""
    names = {7: "<f4", 6: "<u4"}
    dtype = np.dtype(
        {
            "names": [f.name for f in cloud.fields],
            "formats": [names[f.datatype] for f in cloud.fields],
            "offsets": [f.offset for f in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    assert cloud.row_step == cloud.width * cloud.point_step == len(cloud.data)
    assert (cloud.height, cloud.is_bigendian, cloud.is_dense) == (1, False, True)
    return np.frombuffer(cloud.data, dtype)


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        ({}, (30, 50)),
        ({"max_per_object": 20}, (20, 20)),
        ({"max_per_object": 40}, (30, 40)),
        ({"max_total": 75}, (30, 45)),
        ({"max_total": 20, "max_per_object": 12}, (10, 10)),
        ({"voxel": 1.0}, (1, 1)),
    ],
)
def test_the_cloud_and_the_message_agree(limits: dict, counts: tuple[int, int]) -> None:
    scene = make_scene()
    clouds = thin_clouds(scene, PointsConfig(**limits))
    cloud = over_the_wire(cloud_message(clouds, HEADER, T_BASE_CAMERA))
    assert cloud.header == HEADER
    msg = over_the_wire(objects_message(scene, HEADER, "cam", T_BASE_CAMERA, clouds=clouds, include_points=True))
    assert [o.point_offset for o in msg.objects] == [0, counts[0], *[sum(counts)] * 3]
    assert [o.point_count for o in msg.objects] == [*counts, 0, 0, 0]
    assert msg.points == cloud
    rows = table(cloud)
    assert_array_equal(rows["label"], np.repeat([1, 2], counts))
    for source, obj in zip(scene.objects[:2], msg.objects[:2], strict=True):
        points = points_of(msg, obj)
        assert_array_equal(points, points_of(msg, obj, cloud))
        distance = np.linalg.norm(base(source.points)[:, None] - points[None], axis=2)
        assert distance.min(axis=0).max() < 1e-6  # every point is one of the object's
        nearest = distance.argmin(axis=0)
        assert len(set(nearest)) == len(points)
        rgb = rows["rgb"][rows["label"] == obj.label].view(np.uint32)
        sent = source.colors[nearest].astype(np.uint32)
        assert_array_equal(rgb, sent[:, 0] << 16 | sent[:, 1] << 8 | sent[:, 2])


def test_voxels_keep_one_point_per_cell() -> None:
    points = np.array([[0, 0, 1], [0.001, 0, 1], [0.012, 0, 1], [0.012, 0.001, 1], [0.03, 0, 1]], np.float32)
    scene = make_scene()
    obj = replace(scene.objects[0], points=points, colors=np.zeros((5, 3), np.uint8))
    one = Scene(scene.frame, scene.instances[:1], (obj,))
    for limits, kept in (({"voxel": 0.01}, [0, 2, 4]), ({"voxel": 0.0005}, [0, 1, 2, 3, 4]), ({"voxel": 0.1}, [0])):
        rows = table(cloud_message(thin_clouds(one, PointsConfig(**limits)), HEADER, np.eye(4)))
        assert_array_equal(np.stack([rows["x"], rows["y"], rows["z"]], axis=1), points[kept])
    both = table(cloud_message(thin_clouds(one, PointsConfig(voxel=0.01, max_per_object=2)), HEADER, np.eye(4)))
    assert len(both) == 2
    assert set(both["x"].tolist()) < set(points[[0, 2, 4], 0].tolist())


def test_points_that_did_not_travel_are_refused() -> None:
    msg = make_message()
    with pytest.raises(ValueError, match=r"points of object 7: expected 30 points in the cloud, got 0"):
        points_of(msg, msg.objects[0])
    other = cloud_message(thin_clouds(make_scene()), Header(frame_id="base"), T_BASE_CAMERA)
    with pytest.raises(ValueError, match="stamp"):
        points_of(msg, msg.objects[0], other)


@pytest.mark.parametrize("stride", [1, 2])
def test_scene_cloud_holds_every_measured_pixel(stride: int) -> None:
    scene = make_scene()
    rows = table(over_the_wire(scene_cloud_message(scene.frame, label_image(scene), HEADER, T_BASE_CAMERA, stride)))
    v, u = np.mgrid[10:30:stride, 10:40:stride].reshape(2, -1)
    assert len(rows) == len(u)  # not the inf, -inf and 0 of the first row
    expected = base(np.stack([(u - 40) / 100.0, (v - 30) / 90.0, np.ones(len(u))], axis=1))
    assert_allclose(np.stack([rows["x"], rows["y"], rows["z"]], axis=1), expected, atol=1e-6)
    assert_array_equal(rows["label"], label_image(scene)[v, u])
    color = scene.frame.color[v, u].astype(np.uint32)
    assert_array_equal(rows["rgb"].view(np.uint32), color[:, 0] << 16 | color[:, 1] << 8 | color[:, 2])
    withheld = replace(scene.frame, intrinsics=None)
    assert scene_cloud_message(withheld, label_image(scene), HEADER, T_BASE_CAMERA).width == 0
    assert scene_cloud_message(scene.frame, label_image(scene), HEADER, None).width == 0


# -- poses -----------------------------------------------------------------------------------------------------------


def test_quaternions_of_any_rotation() -> None:
    turns = Rotation.random(500, random_state=0)
    halves = Rotation.from_rotvec(np.pi * np.concatenate([np.eye(3), -np.eye(3), [[0.6, 0.8, 0], [0, -0.6, 0.8]]]))
    for rotations in (turns, halves, Rotation.identity(1)):
        q = quaternions_of(rotations.as_matrix())
        assert_allclose(np.linalg.norm(q, axis=1), 1, atol=1e-12)
        assert (q[:, 3] >= 0).all()
        assert_allclose(Rotation.from_quat(q).as_matrix(), rotations.as_matrix(), atol=1e-9)
    assert quaternions_of(np.empty((0, 3, 3))).shape == (0, 4)


def test_pose_and_transform_messages() -> None:
    assert_allclose(matrix_from_pose(pose_from_matrix(T_BASE_CAMERA)), T_BASE_CAMERA, atol=1e-12)
    msg = transform_message(T_BASE_CAMERA)
    assert xyz(msg.translation).tolist() == [0.1, 0.2, 0.5]
    assert transform_message(np.eye(4)).rotation.w == 1.0


def test_grasp_poses_are_the_best_of_each_object_in_pick_order() -> None:
    scene, msg = make_scene(), make_message()
    poses = grasp_poses(msg, scene)
    assert poses.header == HEADER
    assert poses.poses == [msg.objects[1].grasps[0].pose, msg.objects[0].grasps[0].pose]  # row 1 is nearer
    taller = replace(scene.objects[0], height_above_support=0.25)
    poses = grasp_poses(msg, replace(scene, objects=(taller, *scene.objects[1:])))
    assert poses.poses == [msg.objects[0].grasps[0].pose, msg.objects[1].grasps[0].pose]


# -- markers ---------------------------------------------------------------------------------------------------------


def test_markers_appear_move_and_go() -> None:
    markers = Markers()
    msg = make_message()
    first = over_the_wire(markers.update(msg)).markers
    assert first[0].action == Marker.DELETEALL
    assert {(m.ns, m.id) for m in first[1:]} == {
        (ns, i) for ns in ("boxes", "labels", "grippers") for i in (7, 4_000_000_000 - 2**32)
    }
    assert all(m.header == HEADER and m.action == Marker.ADD for m in first[1:])
    box, label, gripper = (next(m for m in first if m.ns == ns and m.id == 7) for ns in ("boxes", "labels", "grippers"))
    assert box.pose == msg.objects[0].box_pose
    assert_allclose(xyz(box.scale), [0.06, 0.04, 0.10])
    assert label.text == "7 cup 0.90"
    assert label.pose.position.z > msg.objects[0].box_pose.position.z + 0.05  # above the box
    assert_allclose(xyz(label.pose.position)[:2], xyz(box.pose.position)[:2], atol=1e-12)
    assert gripper.pose == msg.objects[0].grasps[0].pose
    assert (gripper.type, len(gripper.points)) == (Marker.TRIANGLE_LIST, 3 * 36)
    corners = np.array([xyz(p) for p in gripper.points])
    fingers = corners[corners[:, 2] > 0.0]  # of a Robotiq 2F-85, opened by 55 mm
    assert_allclose(np.unique(fingers[:, 1]), [-0.0415, -0.0275, 0.0275, 0.0415], atol=1e-9)
    assert_allclose(np.unique(fingers[:, 0]), [-0.011, 0.011], atol=1e-9)
    assert_allclose(fingers[:, 2], 0.008, atol=1e-9)
    assert_allclose(corners.min(axis=0), [-0.0375, -0.075, 0.008 - 0.055 - 0.095], atol=1e-9)  # the palm

    again = markers.update(msg).markers
    assert not [m for m in again if m.action != Marker.ADD]
    assert [m.color for m in over_the_wire(markers.update(msg)).markers] == [m.color for m in first[1:]]

    msg.objects = msg.objects[1:]  # object 7 is gone
    gone = [m for m in markers.update(msg).markers if m.action == Marker.DELETE]
    assert {(m.ns, m.id) for m in gone} == {("boxes", 7), ("labels", 7), ("grippers", 7)}
    assert not [m for m in markers.update(msg).markers if m.action == Marker.DELETE]
    markers.reset()
    assert [m.action for m in markers.update(msg).markers] == [Marker.DELETEALL, *[Marker.ADD] * 3]


def test_colors_by_class() -> None:
    msg = make_message()
    msg.objects[0].class_id = msg.objects[1].class_id = 2
    boxes = [m for m in Markers(by_class=True).update(msg).markers if m.ns == "boxes"]
    assert boxes[0].color == boxes[1].color
    by_id = [m for m in Markers().update(msg).markers if m.ns == "boxes"]
    assert by_id[0].color != by_id[1].color


@pytest.mark.parametrize(("name", "lip"), [("suction_20", 0.010), ("mine", 0.025), ("nobody_knows", 0.012)])
def test_the_gripper_shown_is_the_one_that_was_planned_for(name: str, lip: float) -> None:
    msg = make_message()
    grasp = msg.objects[0].grasps[0]
    grasp.kind, grasp.width, grasp.gripper = grasp.SUCTION, 0.0, name
    mine = {"kind": "suction", "name": "mine", "cup_radius": 0.025, "cup_length": 0.02, "body_radius": 0.01}
    planners = load_config({"grasping": {"planners": ["suction"], "suction": {"gripper": mine}}}).grasping.planners
    marker = next(m for m in Markers().update(msg, planners).markers if m.ns == "grippers" and m.id == 7)
    corners = np.array([xyz(p) for p in marker.points])
    at_contact = corners[np.abs(corners[:, 2]) < 1e-9]
    assert_allclose(np.hypot(*at_contact[:, :2].T).max(), lip, atol=1e-9)
    assert corners[:, 2].max() < 1e-9


# -- the documentation's consumer -----------------------------------------------------------------------------------


def test_the_consumer_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "messages.md").read_text()
    consumer: dict[str, Any] = {"__name__": "consumer"}
    exec(page.split("```python\n")[1].split("```")[0], consumer)
    scene, msg = make_scene(), make_message(include_points=True)
    dense = [consumer["decode_mask"](obj.mask) for obj in msg.objects]
    assert_array_equal(dense, scene.instances.masks.dense()[ORDER])
    points = consumer["object_points"](msg.points, msg.objects[1])
    assert_allclose(points, base(scene.objects[1].points), atol=1e-6)
    msg.objects[1].grasps[0].score = 0.95
    assert consumer["best_grasp"](msg).object_id == msg.objects[1].id
    msg.objects[1].in_workspace = False
    assert consumer["best_grasp"](msg).object_id == 7
    msg.objects = []
    assert consumer["best_grasp"](msg) is None


# -- vision_msgs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def detections() -> Any:
    pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    from seg_perception.ros import detections

    return detections


def test_detections(detections: Any) -> None:
    msg = make_message()
    array = over_the_wire(detections.detections(msg))
    assert type(array) is detections.TOPICS["detections"]
    assert array.header == HEADER
    assert [d.id for d in array.detections] == ["7", "4000000000"]  # those with 3D
    detection, source = array.detections[0], msg.objects[0]
    assert detection.header == HEADER
    assert detection.bbox.center == source.box_pose
    assert detection.bbox.size == source.box_size
    result = detection.results[0]
    assert (result.hypothesis.class_id, result.pose.pose) == ("cup", source.box_pose)
    assert_allclose(result.hypothesis.score, 0.9, rtol=1e-6)
    covariance = result.pose.covariance.reshape(6, 6)
    assert_allclose(covariance[:3, :3].reshape(-1), source.centroid_covariance)
    assert_array_equal(np.diag(covariance)[3:], [1e6] * 3)
    assert [d.results[0].hypothesis.class_id for d in detections.detections(msg, "index").detections] == ["2", "-1"]


def test_detections_2d_and_label_info(detections: Any) -> None:
    msg = make_message()
    array = over_the_wire(detections.detections_2d(msg))
    assert type(array) is detections.TOPICS["detections_2d"]
    assert (array.header.stamp, array.header.frame_id) == (STAMP, "cam")
    assert [d.id for d in array.detections] == ["7", "4000000000", "10", "9", "11"]
    bbox = array.detections[1].bbox
    assert (bbox.center.position.x, bbox.center.position.y, bbox.size_x, bbox.size_y) == (45.0, 35.0, 30.0, 30.0)
    info = over_the_wire(detections.label_info(["box", "bowl", "cup"], HEADER, 0.25))
    assert {c.class_id: c.class_name for c in info.class_map} == {1: "box", 2: "bowl", 3: "cup", 65535: "object"}
    assert info.threshold == 0.25
