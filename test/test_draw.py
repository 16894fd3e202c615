# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Overlays: what is drawn lies where the object is, in its own color, and nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from seg_perception.draw import TINT, label_colors, label_text, overlay
from seg_perception.geometry import project, transform
from seg_perception.scene import (
    Frame,
    Grasp,
    GraspKind,
    Instances,
    Intrinsics,
    Object3D,
    OrientedBox,
    Scene,
    Status,
)

GREY = 100
K = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)


def scene_of(masks, objects, intrinsics=K):
    masks = np.asarray(masks)
    color = np.full((*masks.shape[1:], 3), GREY, np.uint8)
    return Scene(Frame(color, intrinsics=intrinsics), Instances.from_masks(masks), tuple(objects))


def block(y0, y1, x0, x1, height=240, width=320):
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def at(z, size=(0.1, 0.06, 0.2), grasps=(), object_id=7):
    """A box seen head-on, its centre on the optical axis at z metres."""
    return Object3D(
        Status.OK,
        centroid=np.array([0, 0, z]),
        box=OrientedBox(transform(translation=[0, 0, z]), np.asarray(size)),
        id=object_id,
        grasps=grasps,
    )


def close(pixel, color, within):
    return np.abs(pixel.astype(int) - np.asarray(color)).max() <= within


def test_masks_are_tinted_outlined_and_nothing_else_changes():
    mask = block(60, 180, 100, 220)
    scene = scene_of([mask], [Object3D(Status.NO_VALID_DEPTH, id=3)])
    picture = overlay(scene.frame.color, scene, labels=False)
    shade = label_colors([3])[0]
    inside = (1 - TINT) * GREY + TINT * shade.astype(float)
    assert close(picture[100, 150], inside, 1)
    assert_array_equal(picture[60, 150], shade)  # the outline is inside the mask, unmixed
    assert (picture[~mask] == GREY).all()
    assert (scene.frame.color == GREY).all()  # the input is not written to


def test_the_nearer_object_is_on_top():
    near, far = at(0.5, object_id=1), at(0.9, object_id=2)
    both = [block(60, 180, 100, 220)] * 2
    for objects in ([near, far], [far, near]):
        scene = scene_of(both, objects)
        picture = overlay(scene.frame.color, scene, labels=False, boxes=False)
        assert_array_equal(picture[60, 150], label_colors([1])[0])


def test_the_box_is_drawn_where_it_projects():
    obj = at(1.0)
    scene = scene_of([block(118, 122, 158, 162)], [obj])
    picture = overlay(scene.frame.color, scene, labels=False)
    for corner in obj.box.corners[:4]:  # the near face
        u, v = np.round(project(K, corner)).astype(int)
        assert not close(picture[v - 1 : v + 2, u - 1 : u + 2], [GREY] * 3, 20)
    half_width = 0.05 / 0.9 * 300  # px, of the near face 10 cm wide and 0.9 m away
    drawn = np.flatnonzero((picture != GREY).any(axis=(0, 2)))
    assert drawn[0] == pytest.approx(159.5 - half_width, abs=2)
    assert drawn[-1] == pytest.approx(159.5 + half_width, abs=2)
    assert (overlay(scene.frame.color, scene, labels=False, boxes=False)[:100] == GREY).all()


def test_the_gripper_opens_as_wide_as_the_grasp():
    T = transform([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [0.0, 0.0, 1.0])  # away from us, closing along the image's x
    grasp = Grasp(T, width=0.08, score=0.9, kind=GraspKind.PARALLEL_JAW)
    scene = scene_of([block(118, 122, 158, 162)], [at(1.0, grasps=(grasp,))])
    picture = overlay(scene.frame.color, scene, labels=False, boxes=False)
    columns = np.flatnonzero((picture != GREY).any(axis=(0, 2)))
    palm_half = 0.04 / (1.0 - 0.045) * 300  # px; the fingers' roots are 45 mm nearer to the camera
    assert columns[0] == pytest.approx(159.5 - palm_half, abs=4)
    assert columns[-1] == pytest.approx(159.5 + palm_half, abs=4)
    suction = replace(scene.objects[0], grasps=(replace(grasp, kind=GraspKind.SUCTION, width=0.0),))
    drawn = overlay(scene.frame.color, replace(scene, objects=(suction,)), labels=False, boxes=False)
    assert (drawn != GREY).any(axis=(0, 2)).sum() < 24  # a cup of 3 cm


def test_label_says_class_id_and_distance_or_why_there_is_none():
    assert label_text("mug", at(0.62)) == "mug #7 0.62 m"
    assert label_text("object", Object3D(Status.NO_VALID_DEPTH, id=2)) == "#2 no depth"
    for status in Status:
        assert label_text("mug", Object3D(status, centroid=np.zeros(3), id=1)) != ""
    scene = scene_of([block(100, 140, 100, 220)], [Object3D(Status.TOO_FAR, id=1)])
    with_text, without = (overlay(scene.frame.color, scene, labels=on) for on in (True, False))
    changed = np.argwhere((with_text != without).any(axis=2))
    assert len(changed) > 300
    assert changed[:, 0].max() < 100  # above the object, not over it


def test_labels_keep_off_other_objects_and_each_other():
    first, second = (
        block(100, 140, 100, 160),
        block(60, 98, 60, 220),
    )  # the second lies where the first's label would go
    objects = [Object3D(Status.TOO_FAR, id=i) for i in (1, 2)]
    scene = scene_of([first, second], objects)
    with_text, without = (overlay(scene.frame.color, scene, labels=on) for on in (True, False))
    changed = (with_text != without).any(axis=2)
    assert not changed[second].any()
    assert changed.sum() > 600


def test_colors_are_stable_and_neighbours_differ():
    colors = label_colors(range(1, 41)).astype(int)
    assert_array_equal(label_colors([17])[0], colors[16])
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 100
    assert len(np.unique(colors, axis=0)) == 40
    assert label_colors([]).shape == (0, 3)
    scene = scene_of([block(60, 180, 100, 220)], [Object3D(Status.TOO_FAR, id=9)])
    by_class = overlay(scene.frame.color, scene, by_class=True, labels=False)
    assert_array_equal(by_class[60, 150], label_colors([-1])[0])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (120, 160), (240, 320)])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_size_and_any_number(height, width, count):
    generator = np.random.default_rng(count)
    masks = generator.random((count, height, width)) < 0.1
    k = Intrinsics(width, height, float(width), float(width), width / 2, height / 2)
    grasp = Grasp(np.eye(4), 0.05, 0.5, GraspKind.PARALLEL_JAW)
    objects = [at(z, object_id=i + 1, grasps=(grasp,)) for i, z in enumerate(generator.uniform(-0.2, 2, count))]
    for intrinsics in (k, None):  # some boxes are behind the camera, some around it
        scene = scene_of(masks.reshape(count, height, width), objects, intrinsics)
        picture = overlay(scene.frame.color, scene)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8
        assert (picture != GREY).any(axis=2)[masks.any(axis=0)].all()
