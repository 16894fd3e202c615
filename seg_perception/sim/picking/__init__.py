# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasps tried in physics: things on a table, a depth camera, a gripper that goes there, closes, lifts and shakes.

Needs MuJoCo (`pip install 'seg_perception[sim]'`); neither GL nor a GPU. docs/picking.md says how a pick is judged.
"""
