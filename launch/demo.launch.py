# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A camera without hardware and the perception node: the simulated table, or a folder of recorded frames.

ros2 launch seg_perception demo.launch.py rviz:=true
ros2 launch seg_perception demo.launch.py source:=/path/to/frames config:=yolo model:=/path/to/model.onnx
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PERCEPTION = Path(get_package_share_directory("seg_perception")) / "launch" / "perception.launch.py"

ARGUMENTS = [
    ("source", "sim", "sim, or a folder of RGB-D frames"),
    ("rate", "30.0", "frames per second"),
    ("motion", "still", "of the simulated camera: still, moving"),
    ("width", "640", "of the simulated camera, px"),
    ("height", "480", "of the simulated camera, px"),
]


def generate_launch_description() -> LaunchDescription:
    """All arguments of perception.launch.py apply too."""
    declared = [DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS]
    perception = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(PERCEPTION)))
    return LaunchDescription([*declared, perception, OpaqueFunction(function=_camera)])


def _camera(context: LaunchContext) -> list[Node]:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    parameters = {"rate": float(given("rate"))}
    if given("source") == "sim":
        executable = "sim_camera"
        parameters |= {"motion": given("motion"), "width": int(given("width")), "height": int(given("height"))}
    else:
        executable = "folder_camera"
        parameters |= {"folder": given("source")}
    camera = Node(
        package="seg_perception",
        executable=executable,
        namespace=given("namespace"),
        parameters=[parameters],
        output="screen",
    )
    return [camera]
