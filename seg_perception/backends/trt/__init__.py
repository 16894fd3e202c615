# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of the TensorRT backend. `trt` is always the module, tensorrt or tensorrt_rtx, handed in as an object."""
