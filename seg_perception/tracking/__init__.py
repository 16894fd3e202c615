# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Trackers: identities over time."""

from seg_perception.tracking.none import NoTracker

__all__ = ["NoTracker"]
