# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration tree as ROS parameters, on a node in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2: source scripts/env")

from rclpy.parameter import Parameter  # noqa: E402

from seg_perception.config import Config, ConfigError, describe  # noqa: E402
from seg_perception.ros.parameters import Parameters  # noqa: E402


@pytest.fixture(scope="module")
def context() -> Iterator:
    made = rclpy.Context()
    rclpy.init(context=made)
    yield made
    rclpy.shutdown(context=made)


class Node:
    """A node with parameters, and what `apply` was called with."""

    def __init__(self, context, **overrides) -> None:
        given = [Parameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        self.node = rclpy.create_node("p", context=context, parameter_overrides=given, start_parameter_services=False)
        self.configured = False
        self.applied: list[Config] = []
        self.parameters = Parameters(self.node, lambda: self.configured, self.applied.append)

    def set(self, **values):
        changed = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        return self.node.set_parameters_atomically(changed)

    def get(self, name: str):
        value = self.node.get_parameter(name).value
        return list(value) if hasattr(value, "tolist") else value


@pytest.fixture
def make(context) -> Iterator:
    nodes = []

    def make(**overrides) -> Node:
        nodes.append(Node(context, **overrides))
        return nodes[-1]

    yield make
    for one in nodes:
        one.node.destroy_node()


def test_every_option_is_a_parameter_with_unit_range_and_choices(make) -> None:
    node = make()
    for option in describe(Config()):
        assert node.node.has_parameter(option.name), option.name
    depth = node.node.describe_parameter("fusion.min_depth")
    assert "[m]" in depth.description
    slop = node.node.describe_parameter("sync.slop")
    assert (slop.floating_point_range[0].from_value, slop.floating_point_range[0].to_value) == (0.0, 1.0)
    run = node.node.describe_parameter("run")
    assert "one of stream, on_request" in run.additional_constraints
    assert "needs cleanup first" in run.additional_constraints
    assert "live" in node.node.describe_parameter("max_instances").additional_constraints


def test_the_segmenter_decides_which_parameters_exist(make) -> None:
    node = make(segmenter__plugin="yolo", segmenter__score_threshold=0.4)
    assert node.get("segmenter.score_threshold") == 0.4
    assert node.get("segmenter.backend.plugin") == "onnxruntime"
    assert node.set(segmenter__plugin="tabletop").successful
    assert not node.node.has_parameter("segmenter.score_threshold")
    assert node.parameters.load().segmenter.plugin == "tabletop"
    assert node.set(segmenter__plugin="yolo").successful
    assert node.get("segmenter.score_threshold") == -1  # what was given for the first yolo is forgotten


def test_a_misspelled_override_fails_and_names_the_nearest(make) -> None:
    for name, words in (
        ("fusion.min_dept", "did you mean 'min_depth'"),
        ("fuison.min_depth", "did you mean 'fusion'"),
        ("segmenter.treshold", "segmenter.treshold"),
        ("max_instance", "did you mean 'max_instances'"),
    ):
        with pytest.raises(ConfigError) as error:
            make(**{name.replace(".", "__"): 1}).parameters.load()
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_what_belongs_to_ros_or_to_others_is_left_alone(make) -> None:
    node = make(robot_name="arm", **{"qos_overrides./x.subscription.depth": 3}, use_sim_time=False)
    assert node.parameters.load() == make().parameters.load()


def test_changes_are_taken_together_or_refused_together(make) -> None:
    node = make()
    node.configured = True
    result = node.set(max_instances=5, workspace__min=[1.0, 0.0, 0.0], workspace__max=[0.0, 0.0, 0.0])
    assert not result.successful
    assert "workspace: expected min <= max" in result.reason
    assert node.get("max_instances") == 100
    assert node.applied == []
    assert node.set(max_instances=5, fusion__min_depth=0.3).successful
    assert (node.applied[-1].max_instances, node.applied[-1].fusion.min_depth) == (5, 0.3)
    assert node.get("fusion.min_depth") == 0.3


def test_not_live_ones_wait_for_cleanup(make) -> None:
    node = make()
    node.configured = True
    for change in ({"run": "on_request"}, {"segmenter__plugin": "yolo"}, {"config": "tabletop"}):
        result = node.set(**change)
        assert not result.successful
        assert "needs cleanup first" in result.reason
    node.configured = False
    assert node.set(run="on_request").successful
    assert node.parameters.load().run == "on_request"


def test_whole_numbers_and_booleans_do_for_what_they_mean(make) -> None:
    node = make(fusion__max_depth=3, workspace__max=[1, 1, 1], depth__registered=True)
    assert node.parameters.load().fusion.max_depth == 3.0
    assert node.get("fusion.max_depth") == 3.0
    assert node.parameters.config.depth.registered == "true"
    assert node.set(fusion__max_depth=4, workspace__min=[0, 0, -1]).successful
    assert node.get("workspace.min") == [0.0, 0.0, -1.0]


def test_what_apply_refuses_is_not_set(context) -> None:
    def refuse(config: Config) -> None:
        raise ConfigError("no way")

    node = rclpy.create_node("q", context=context, start_parameter_services=False)
    Parameters(node, lambda: True, refuse)
    result = node.set_parameters_atomically([Parameter("max_instances", value=3)])
    assert (result.successful, result.reason) == (False, "no way")
    assert node.get_parameter("max_instances").value == 100
    node.destroy_node()


def test_a_list_of_planners_brings_their_parameters(make) -> None:
    node = make(grasping__planners=[""])
    with pytest.raises(ConfigError):
        node.parameters.load()
    node = make()
    assert node.node.has_parameter("grasping.antipodal.gripper")
    assert node.get("grasping.planners") == ["antipodal"]
