# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From arrays that a network put out to masks as row spans, without full-size stacks."""
