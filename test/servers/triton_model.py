# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A Triton model that runs net.onnx beside it in ONNX Runtime: the Python backend's file `model.py` of any network."""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as backend

TYPES = {"float": "FP32", "float16": "FP16", "double": "FP64", "int64": "INT64", "int32": "INT32", "uint8": "UINT8"}


def session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(Path(__file__).with_name("net.onnx")), options)


def contract(node):
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    dims = [n if isinstance(n, int) else -1 for n in node.shape]
    return {"name": node.name, "data_type": f"TYPE_{TYPES[kind]}", "dims": dims}


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        network = session()
        config.set_max_batch_size(0)
        for node in network.get_inputs():
            config.add_input(contract(node))
        for node in network.get_outputs():
            config.add_output(contract(node))
        return config

    def initialize(self, args):
        self.network = session()
        self.inputs = [node.name for node in self.network.get_inputs()]
        self.outputs = [node.name for node in self.network.get_outputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        feed = {name: backend.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        results = self.network.run(None, feed)
        return backend.InferenceResponse([backend.Tensor(n, r) for n, r in zip(self.outputs, results, strict=True)])
