# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tiled inference: every object once and whole, wherever the seams are; also what is too small for the whole image."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from contract_models import beside
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame, Instances, Intrinsics
from seg_perception.segmenters.tiled import Tile, Tiled, part_of, tiles_of
from seg_perception.segmenters.yolo import Yolo


class Painted:
    """A segmenter that sees each color as an object, if it is large enough in its input of 100 x 100 px.

    Red is the object's number, green its class. It draws masks at its input's resolution, as networks do.
    """

    class Config:
        pass

    class_names = ("bolt", "nut")
    SIDE = 100

    def __init__(self, config=None):
        self.frames = []

    def segment(self, frame):
        self.frames.append(frame)
        size = (self.SIDE, self.SIDE)
        small = cv2.resize(frame.color, size, interpolation=cv2.INTER_NEAREST)
        masks, ids, scores = [], [], []
        for number in np.unique(small[..., 0][small[..., 0] > 0]):
            mask = small[..., 0] == number
            if mask.sum() >= 12:
                masks.append(cv2.resize(mask.astype(np.uint8), (frame.width, frame.height), interpolation=0) > 0)
                ids.append(int(small[mask][0, 1]))
                scores.append(0.5 + mask.mean() / 2)
        masks = np.array(masks, bool).reshape(-1, frame.height, frame.width)
        return Instances.from_masks(masks, ids, scores, [self.class_names[i] for i in ids])


def tiled(segmenter=None, **options) -> Tiled:
    values = {"segmenter": "tabletop", "tile_width": 100, "tile_height": 100, "whole_image": False, **options}
    other = object.__new__(Tiled)
    other._bind(parse(Tiled.Config, values), segmenter or Painted())
    return other


def scene(*objects, shape=(230, 310)) -> Frame:
    """Boxes x0, y0, x1, y1, class."""
    color = np.zeros((*shape, 3), np.uint8)
    for number, (x0, y0, x1, y1, class_id) in enumerate(objects, 1):
        color[y0:y1, x0:x1, :2] = number, class_id
    return Frame(color)


def expected(frame) -> np.ndarray:
    """(N, H, W) the objects as painted."""
    numbers = frame.color[..., 0]
    return np.array([numbers == n for n in range(1, numbers.max() + 1)])


def same(found, frame):
    """Each painted object is found once, exactly, with its class."""
    truth = list(expected(frame))
    assert len(found) == len(truth)
    for mask, class_id, box in zip(found.masks.dense(), found.class_ids, found.boxes, strict=True):
        k = int(np.argmin([(mask != t).sum() for t in truth]))
        t = truth.pop(k)
        np.testing.assert_array_equal(mask, t)
        assert frame.color[t][0, 1] == class_id
        y, x = np.nonzero(t)
        np.testing.assert_array_equal(box, [x.min(), y.min(), x.max() + 1, y.max() + 1])


@settings(max_examples=60, deadline=None)
@given(
    image=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    tile=st.tuples(st.integers(32, 200), st.integers(32, 200)),
    overlap=st.floats(0, 0.8),
)
def test_tiles_cover_the_image_and_share_what_was_asked(image, tile, overlap):
    tiles = tiles_of(image, tile, overlap)
    seen = np.zeros(image, int)
    for top, left, height, width in tiles:
        assert (height, width) == (min(tile[0], image[0]), min(tile[1], image[1]))
        assert top >= 0 and left >= 0 and top + height <= image[0] and left + width <= image[1]  # noqa: PT018
        seen[top : top + height, left : left + width] += 1
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({t[axis] for t in tiles})
        for a, b in pairwise(starts):
            assert a + tile[axis] - b >= int(overlap * tile[axis]) - 1


def test_objects_in_a_tile_across_a_seam_and_across_a_corner_are_found_once_and_whole():
    frame = scene(
        (10, 10, 40, 30, 0),  # in one tile
        (60, 60, 110, 80, 1),  # across a seam
        (130, 60, 170, 120, 0),  # across a corner of four
        (175, 60, 179, 160, 0),  # beside it, of its class
        (200, 20, 310, 40, 1),  # over three tiles, to the image's edge
        (80, 150, 100, 170, 0),  # wholly in two tiles
    )
    line = tiled()
    assert isinstance(line, Segmenter)
    found = line.segment(frame)
    same(found, frame)
    assert (np.diff(found.scores) <= 0).all()
    assert found.class_names == tuple(Painted.class_names[i] for i in found.class_ids)


def test_touching_objects_of_a_class_stay_two():
    frame = scene((60, 60, 84, 100, 0), (84, 60, 120, 100, 0), (60, 100, 120, 125, 1))
    same(tiled().segment(frame), frame)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), overlap=st.sampled_from([0.15, 0.25, 0.5]))
def test_any_boxes(seed, overlap):
    rng = np.random.default_rng(seed)
    boxes = []
    for row in range(3):
        for column in range(4):  # one in each cell of 70 x 75 px: none covers another
            x0, y0 = rng.integers(0, 20, 2)
            w, h = rng.integers(12, 50, 2)
            boxes.append((70 * column + x0, 75 * row + y0, 70 * column + x0 + w, 75 * row + y0 + h, rng.integers(0, 2)))
    frame = scene(*boxes)
    # A sliver of an object in the next tile is too small for the segmenter: it knows the rest from the tile before.
    same(tiled(overlap=overlap).segment(frame), frame)


def test_what_a_network_thinks_of_its_masks_is_kept():
    class Sure(Painted):
        def segment(self, frame):
            found = super().segment(frame)
            return replace(found, mask_scores=(found.scores - 0.25).astype(np.float32))

    for whole in (False, True):
        frame = scene((10, 10, 40, 30, 0), (60, 60, 110, 80, 1), (130, 60, 170, 120, 0))
        found = tiled(Sure(), whole_image=whole).segment(frame)
        np.testing.assert_allclose(found.mask_scores, found.scores - 0.25, atol=0.1)


def test_what_is_small_in_the_whole_image_is_found_in_tiles():
    frame = scene((20, 20, 26, 26, 0), (150, 80, 156, 86, 1), (400, 300, 408, 306, 1), shape=(400, 600))
    assert len(Painted().segment(frame)) == 0
    for whole in (False, True):
        same(tiled(whole_image=whole).segment(frame), frame)


class Shy(Painted):
    """Sees nothing that fills its input."""

    def segment(self, frame):
        found = super().segment(frame)
        return found[found.masks.areas < 0.5 * frame.height * frame.width]


def test_what_is_too_large_for_a_tile_is_taken_from_the_whole_image():
    frame = scene((50, 45, 265, 190, 0), shape=(230, 310))
    assert len(tiled(Shy()).segment(frame)) > 1  # its corners
    found = tiled(Shy(), whole_image=True).segment(frame)
    assert len(found) == 1
    truth = expected(frame)[0]
    assert (found.masks.dense()[0] != truth).sum() < 0.04 * truth.sum()  # at the whole image's resolution: 3 px


def test_the_whole_image_adds_no_second_copy_and_no_blend_of_small_ones():
    class Blurred(Painted):
        """From far, things that stand side by side look like one."""

        def segment(self, frame):
            found = super().segment(frame)
            if frame.width <= 100:
                return found
            return Instances.from_masks(found.masks.dense().any(axis=0)[None], [0], [0.99], ["bolt"])

    frame = scene((100, 100, 120, 130, 0), (121, 100, 140, 130, 0), (141, 100, 160, 130, 0))
    same(tiled(Blurred(), whole_image=True).segment(frame), frame)
    frame = scene((100, 100, 130, 130, 0), (200, 30, 240, 60, 1))
    found = tiled(whole_image=True).segment(frame)
    same(found, frame)
    np.testing.assert_allclose(found.scores.max(), max(tiled().segment(frame).scores))


def test_a_tile_is_a_frame_of_its_own():
    depth = np.arange(230 * 310, dtype=np.float32).reshape(230, 310) + 1
    ignore = np.zeros((230, 310), bool)
    ignore[50:60, 40:70] = True
    intrinsics = Intrinsics(310, 230, 300, 300, 155, 115)
    frame = Frame(scene((0, 0, 9, 9, 0)).color, depth, intrinsics, ignore=ignore)
    part = part_of(frame, Tile(40, 30, 100, 100))
    assert (part.height, part.width) == (100, 100)
    np.testing.assert_array_equal(part.depth, depth[40:140, 30:130])
    assert part.ignore[10:20, 10:40].all()
    assert part.ignore.sum() == 300
    assert (part.intrinsics.cx, part.intrinsics.cy, part.intrinsics.fx) == (125, 75, 300)  # the same rays
    assert part_of(scene((0, 0, 9, 9, 0)), Tile(0, 0, 50, 50)).intrinsics is None


def test_an_image_no_larger_than_a_tile_is_segmented_once():
    segmenter = Painted()
    frame = scene((5, 5, 30, 30, 0), shape=(100, 100))
    same(tiled(segmenter, tile_width=120, whole_image=True).segment(frame), frame)
    assert len(segmenter.frames) == 1


def test_nothing_found():
    frame = scene(shape=(230, 310))
    for whole in (False, True):
        found = tiled(whole_image=whole).segment(frame)
        assert len(found) == 0
        assert (found.masks.height, found.masks.width) == (230, 310)


# -- around real networks ----------------------------------------------------------------------------------------------


def test_around_a_semantic_network(models_dir, tmp_path):
    """A map that says "bolt" where the input is bright: a bright square across the seam is one object."""
    model = beside(tmp_path, models_dir / "contracts" / "unet_smp_tiny.onnx", {"names": ["background", "a", "b", "c"]})
    options = {"plugin": "semantic", "model": str(model), "min_area": 20}
    tiles = {"tile_width": 128, "tile_height": 128, "whole_image": False}
    line = Tiled(parse(Tiled.Config, {"segmenter": options, **tiles}))
    backend = line._segmenter._backend

    class Bright:
        def __call__(self, inputs):
            image = next(iter(inputs.values()))[0, 0]
            maps = np.zeros((1, 4, *image.shape), np.float32)
            maps[0, 1] = image * 10
            return {"logits": maps}

        def __getattr__(self, name):
            return getattr(backend, name)

    line._segmenter._backend = Bright()
    color = np.zeros((200, 300, 3), np.uint8)
    color[60:140, 90:210] = 255
    color[10:30, 10:40] = 255
    found = line.segment(Frame(color))
    assert found.class_names == ("a", "a")
    np.testing.assert_allclose(
        np.sort(found.boxes, axis=0), np.sort([[90, 60, 210, 140], [10, 10, 40, 30]], axis=0), atol=1
    )
    assert abs(found.masks.areas.sum() - 80 * 120 - 20 * 30) <= 250  # edges: half a pixel of the input


def test_around_a_real_yolo_on_a_photograph_that_is_too_large_for_it(models_dir, data_dir):
    paths = sorted((data_dir / "ycbv" / "frames").glob("*_rgb.*"))
    color = cv2.cvtColor(cv2.imread(str(paths[0])), cv2.COLOR_BGR2RGB)
    options = {"segmenter": {"plugin": "yolo", "model": str(models_dir / "yolo26n-seg_480x640.onnx")}}
    options["segmenter"]["backend"] = {"plugin": "onnxruntime", "threads": 1}
    line = Tiled(parse(Tiled.Config, {**options, "tile_width": 640, "tile_height": 480, "whole_image": False}))
    assert line.model.startswith("yolo26n-seg")
    assert len(line.class_names) == 80
    small = line.segment(Frame(color))  # one tile: the network's own
    alone = Yolo(line._config.segmenter.config).segment(Frame(color))
    np.testing.assert_array_equal(small.masks.spans, alone.masks.spans)
    large = Frame(np.tile(color, (2, 2, 1)))  # four copies: with no overlap each tile is one of them
    four = line.with_config(parse(Tiled.Config, {**to_mapping(line._config), "overlap": 0.0})).segment(large)
    np.testing.assert_array_equal(np.sort(four.masks.areas), np.sort(np.repeat(alone.masks.areas, 4)))
    np.testing.assert_array_equal(np.sort(four.scores), np.sort(np.repeat(alone.scores, 4)))


# -- options -----------------------------------------------------------------------------------------------------------


def test_other_tiles_share_the_network_and_another_network_does_not(models_dir):
    values = {"segmenter": {"plugin": "yolo", "model": str(models_dir / "yolo26n-seg_480x640.onnx")}}
    line = Tiled(parse(Tiled.Config, values))
    tree = to_mapping(line._config)
    other = line.with_config(parse(Tiled.Config, {**tree, "tile_width": 320}))
    assert other._segmenter is line._segmenter
    changed = {**tree, "segmenter": {**tree["segmenter"], "score_threshold": 0.9}}
    other = line.with_config(parse(Tiled.Config, changed))
    assert other._segmenter._backend is line._segmenter._backend
    assert other._whole._backend is line._segmenter._backend
    assert other._segmenter._config.score_threshold == 0.9
    with pytest.raises(ConfigError, match="model cannot change"):
        line.with_config(parse(Tiled.Config, {**tree, "segmenter": {**tree["segmenter"], "model": "other.onnx"}}))
    with pytest.raises(ConfigError, match=r"segmenter\.plugin cannot change"):
        line.with_config(parse(Tiled.Config, {**tree, "segmenter": "tabletop"}))
    line.warm_up()
    line.reset()
