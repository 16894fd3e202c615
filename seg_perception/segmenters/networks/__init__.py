# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What families of networks share: the file, its sidecar, what goes in, and the backend that runs it."""
