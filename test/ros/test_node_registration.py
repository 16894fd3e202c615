# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Depth from a camera of its own: another place, another lens, another size. The node moves it into the color image."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from rig import BRICK, FOCAL, HEIGHT, HERE, OPTICAL, RED, TABLE, TOP, WIDTH, NodeProcess, Rig, is_good
from scipy.spatial.transform import Rotation
from seg_perception.msg import SegmentedObject, SegmentedObjectArray
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from seg_perception.geometry import invert, project, ray_table, transform, transform_points
from seg_perception.ros.conversions import stamp_from_ns, stamp_ns
from seg_perception.ros.poses import transform_message
from seg_perception.scene import Intrinsics

DEPTH_FRAME = "camera_depth_optical_frame"
DEPTH_CAMERA = Intrinsics(212, 160, 140.0, 141.0, 104.0, 82.0, (-0.05, 0.02, 0.0, 0.0, 0.0))
COLOR_CAMERA = Intrinsics(WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
TURN = Rotation.from_euler("xyz", [1.0, -0.5, 0.7], degrees=True)
T_COLOR_DEPTH = transform(TURN.as_matrix(), [-0.04, 0.01, 0.005])
EXTRINSIC = [*T_COLOR_DEPTH[:3, 3].tolist(), *TURN.as_quat().tolist()]
SIZE = [(BRICK[2] - BRICK[0]) / FOCAL * TOP, (BRICK[3] - BRICK[1]) / FOCAL * TOP]  # m, of the brick's top


def depth_seen(T_color_depth: NDArray) -> NDArray[np.uint16]:
    """The brick's top and the table, mm, as the depth camera sees them from there."""
    rays = np.concatenate([ray_table(DEPTH_CAMERA), np.ones((DEPTH_CAMERA.height, DEPTH_CAMERA.width, 1))], axis=-1)
    towards = rays @ T_color_depth[:3, :3].T
    start = T_color_depth[:3, 3]
    on_top, on_table = ((z - start[2]) / towards[..., 2] for z in (TOP, TABLE))
    u, v = np.moveaxis(project(COLOR_CAMERA, start + towards * on_top[..., None]), -1, 0)
    x0, y0, x1, y1 = np.array(BRICK) - 0.5
    on_brick = (u > x0) & (u < x1) & (v > y0) & (v < y1)
    return np.round(np.where(on_brick, on_top, on_table) * 1000).astype(np.uint16)


def from_depth_camera(T_color_depth: NDArray, frame_id: str) -> dict[str, Callable]:
    """Options of `shoot` that replace the depth image and its calibration."""
    picture = depth_seen(T_color_depth)

    def depth(message: Image) -> None:
        message.header.frame_id = frame_id
        message.height, message.width = picture.shape
        message.step = 2 * message.width
        message.data = array.array("B", picture.tobytes())

    def depth_info(message: CameraInfo) -> None:
        k = DEPTH_CAMERA
        message.header.frame_id = frame_id
        message.width, message.height, message.d = k.width, k.height, list(k.distortion)
        message.k = k.matrix.ravel().tolist()
        message.p = [0.0] * 12  # the topic's name says that it is rectified; this says that it is not

    return {"depth": depth, "depth_info": depth_info}


def good_brick(rig: Rig, **camera) -> SegmentedObject:
    """The brick in the first result with 3D that was filmed so."""
    start = rig.now()

    def result() -> SegmentedObjectArray | None:
        return next((m for m in rig.objects if is_good(m) and stamp_ns(m.header.stamp) >= start), None)

    (brick,) = rig.film(result, what="3D", **camera).objects
    return brick


def check(brick: SegmentedObject) -> None:
    """Where and as large as it is. Depth taken as it came would be of another size, or 17 px beside."""
    assert brick.status == SegmentedObject.OK
    c = brick.centroid
    assert_allclose([c.x, c.y, c.z], [-0.5 / FOCAL * TOP, -0.5 / FOCAL * TOP, TOP], atol=3e-3)
    assert_allclose(
        sorted([brick.box_size.x, brick.box_size.y], reverse=True), SIZE, atol=6e-3
    )  # a depth pixel is 5 mm


@contextmanager
def running(rig: Rig, *arguments: str, **options) -> Iterator[NodeProcess]:
    rig.objects.clear()
    process = NodeProcess(RED, *arguments, **options)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


@pytest.fixture(scope="module")
def configured(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    """A node that the extrinsic is given to."""
    with running(rig, f"depth.extrinsic:={EXTRINSIC}", namespace=namespace) as process:
        yield process


@pytest.fixture(scope="module")
def with_tf(configured: NodeProcess, namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    """A node that asks (a stand-in of) TF; the other one has ended."""
    configured.stop()
    program = [str(HERE / "node_with_tf_stand_in.py")]
    with running(rig, "tf_timeout:=0.5", namespace=namespace, program=program) as process:
        yield process


@pytest.fixture(scope="module")
def tf(rig: Rig) -> Callable:
    publisher = rig.node.create_publisher(TransformStamped, "stand_in_tf", 100)

    def publish(stamp: int, parent: str, child: str, T_parent_child: NDArray) -> None:
        message = TransformStamped(child_frame_id=child, transform=transform_message(T_parent_child))
        message.header.frame_id, message.header.stamp = parent, stamp_from_ns(stamp)
        publisher.publish(message)

    return publish


def answer(rig: Rig, stamp: int) -> SegmentedObject:
    """The brick in the result of that stamp."""
    message = rig.wait(lambda: next((m for m in rig.objects if stamp_ns(m.header.stamp) == stamp), None), what="answer")
    (brick,) = message.objects
    return brick


def test_the_brick_is_where_and_as_large_as_it_is(configured: NodeProcess, rig: Rig) -> None:
    camera = from_depth_camera(T_COLOR_DEPTH, DEPTH_FRAME)
    check(good_brick(rig, **camera))
    rig.wait_for_diagnostic("input depth", DiagnosticStatus.OK, "receiving", **camera)


def test_a_color_image_that_is_cropped_and_binned(configured: NodeProcess, rig: Rig) -> None:
    def binned(message: CameraInfo) -> None:
        message.width, message.height, message.binning_x, message.binning_y = 700, 520, 2, 2
        message.roi = RegionOfInterest(x_offset=40, y_offset=24, width=2 * WIDTH, height=2 * HEIGHT)
        message.k = [2 * FOCAL, 0.0, WIDTH + 40.0, 0.0, 2 * FOCAL, HEIGHT + 24.0, 0.0, 0.0, 1.0]

    check(good_brick(rig, info=binned, **from_depth_camera(T_COLOR_DEPTH, DEPTH_FRAME)))


def test_registered_depth_stays_as_it_is(configured: NodeProcess, rig: Rig) -> None:
    check(good_brick(rig))


def test_without_a_fitting_calibration_3d_is_withheld(configured: NodeProcess, rig: Rig) -> None:
    only_image = {"depth": from_depth_camera(T_COLOR_DEPTH, DEPTH_FRAME)["depth"]}
    rig.wait_for_diagnostic(
        "input depth", DiagnosticStatus.WARN, "needs a camera_info of 212x160", "got one of 320x240", **only_image
    )
    brick = answer(rig, rig.shoot(**only_image))
    assert brick.status == SegmentedObject.DEPTH_MISALIGNED
    assert "let the driver register depth" in brick.status_text


def test_a_driver_whose_depth_is_not_as_aligned_as_it_says(configured: NodeProcess, rig: Rig) -> None:
    def shift(message: Image) -> None:
        depth = np.frombuffer(message.data, np.uint16).reshape(HEIGHT, WIDTH)
        message.data = array.array("B", np.roll(depth, (2, 7), (0, 1)).tobytes())

    rig.wait_for_diagnostic("alignment", DiagnosticStatus.OK)
    rig.wait_for_diagnostic("alignment", DiagnosticStatus.WARN, "7 px beside color", "x +7", "y +2", depth=shift)
    assert "alignment: depth lies 7 px" in configured.log
    rig.wait_for_diagnostic("alignment", DiagnosticStatus.OK)


def test_withheld_until_there_is_a_transform(with_tf: NodeProcess, rig: Rig, tf: Callable) -> None:
    camera = from_depth_camera(T_COLOR_DEPTH, DEPTH_FRAME)
    brick = answer(rig, rig.shoot(**camera))
    assert brick.status == SegmentedObject.DEPTH_MISALIGNED
    assert brick.mask.area > 0
    for word in ("212x160", "320x240", DEPTH_FRAME, "does not exist", "depth.extrinsic"):
        assert word in brick.status_text
    stamp = rig.now()
    tf(stamp, OPTICAL, DEPTH_FRAME, T_COLOR_DEPTH)
    rig.shoot(stamp, **camera)
    check(answer(rig, stamp))


def test_a_camera_that_moves_between_the_two_images(with_tf: NodeProcess, rig: Rig, tf: Callable) -> None:
    assert rig.set_parameters(target_frame="base_link").successful
    T_base_color = transform(np.diag([1.0, -1.0, -1.0]), [0.4, 0.1, 0.9])
    moved = transform(translation=[0.03, 0.0, 0.0])  # since the depth image was taken
    stamp = rig.now()
    before = stamp - 10_000_000
    tf(stamp, "base_link", OPTICAL, T_base_color)
    tf(before, "base_link", DEPTH_FRAME, T_base_color @ invert(moved) @ T_COLOR_DEPTH)
    camera = from_depth_camera(invert(moved) @ T_COLOR_DEPTH, DEPTH_FRAME)
    rig.shoot(stamp, depth_shift=-0.01, **camera)
    brick = answer(rig, stamp)
    assert brick.status == SegmentedObject.OK, brick.status_text
    expected = transform_points(T_base_color, [-0.5 / FOCAL * TOP, -0.5 / FOCAL * TOP, TOP])
    assert_allclose([brick.centroid.x, brick.centroid.y, brick.centroid.z], expected, atol=3e-3)
    assert_allclose(sorted([brick.box_size.x, brick.box_size.y], reverse=True), SIZE, atol=6e-3)
