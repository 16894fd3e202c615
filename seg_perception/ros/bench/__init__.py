# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The ROS side of `seg-perception bench`: serialized messages, a camera that keeps time, an empty node, a listener."""
