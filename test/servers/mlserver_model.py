# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An MLServer runtime that runs the ONNX file of its settings in ONNX Runtime."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.network = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload):
        feed = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        results = self.network.run(None, feed)
        names = [node.name for node in self.network.get_outputs()]
        outputs = [NumpyCodec.encode_output(name, result) for name, result in zip(names, results, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
