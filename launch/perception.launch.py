# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Starts the perception node, and RViz if asked; include it from a robot's launch file.

    ros2 launch seg_perception perception.launch.py camera:=realsense rviz:=true
    ros2 launch seg_perception perception.launch.py config:=yolo model:=parts.onnx color:=/cam/image ...

`ros2 launch seg_perception perception.launch.py --show-args` lists every argument.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node

SHARE = Path(get_package_share_directory("seg_perception"))

ARGUMENTS = [
    ("namespace", "", "namespace of the node and of its relative topics"),
    ("name", "seg_perception", "node name; outputs are <namespace>/<name>/objects, ..."),
    ("config", "tabletop", "config file or shipped name of the segmenter: tabletop, yolo"),
    (
        "camera",
        "",
        "config file or shipped name of the camera: realsense, orbbec, zed, azure_kinect, oak; empty = topics below",
    ),
    ("params_file", "", "ROS parameter file, laid over the configs"),
    ("model", "", "model file (segmenter.model)"),
    ("backend", "", "runtime plugin (segmenter.backend.plugin)"),
    ("target_frame", "", "frame of all 3D output; empty = the camera's optical frame"),
    ("run", "", "stream or on_request"),
    ("color", "", "color image topic"),
    ("color_info", "", "color camera_info topic"),
    ("depth", "", "depth image topic"),
    ("depth_info", "", "depth camera_info topic"),
    ("autostart", "true", "configure and activate by itself; false = a lifecycle manager does"),
    ("use_sim_time", "false", "take time from /clock"),
    ("log_level", "info", "debug, info, warn, error, fatal"),
    ("rviz", "false", "start RViz with our view"),
    (
        "fastdds_profile",
        str(SHARE / "config" / "fastdds_shm.xml"),
        "Fast DDS profile with room for large images; empty = none",
    ),
]

# launch argument -> parameter it sets when it is not empty
PARAMETERS = {
    "model": "segmenter.model",
    "backend": "segmenter.backend.plugin",
    "target_frame": "target_frame",
    "run": "run",
    "color": "topics.color",
    "color_info": "topics.color_info",
    "depth": "topics.depth",
    "depth_info": "topics.depth_info",
}


def generate_launch_description() -> LaunchDescription:
    declared = [DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([str(SHARE), "rviz", "perception.rviz"])],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*declared, OpaqueFunction(function=_profile), OpaqueFunction(function=_node), rviz])


def _profile(context: LaunchContext) -> list[SetEnvironmentVariable]:
    """The shared-memory profile, unless the user has one; the camera driver's process needs it too (docs/ros.md)."""
    profile = LaunchConfiguration("fastdds_profile").perform(context)
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    return [SetEnvironmentVariable(name, profile) for name in names if profile and name not in os.environ]


def _node(context: LaunchContext) -> list[LifecycleNode]:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    overrides = {parameter: given(name) for name, parameter in PARAMETERS.items() if given(name)}
    overrides["config"] = ",".join(name for name in (given("config"), given("camera")) if name)
    overrides["autostart"] = given("autostart").lower() == "true"
    overrides["use_sim_time"] = given("use_sim_time").lower() == "true"
    node = LifecycleNode(
        package="seg_perception",
        executable="seg_perception_node",
        namespace=given("namespace"),
        name=given("name"),
        parameters=[*([given("params_file")] if given("params_file") else []), overrides],
        arguments=["--ros-args", "--log-level", given("log_level")],
        output="screen",
    )
    return [node]
