# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model server over HTTP (JSON only) that can do what real ones cannot be made to do on demand."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

TENSOR = {"name": "y", "datatype": "FP32", "shape": [1, 4]}


class ProtocolStandIn:
    """Serves the model `net`: y = 2 x for x (1, 4), unless its attributes say otherwise."""

    def __init__(self, certificate=None, key=None):
        self.inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]
        self.outputs = [TENSOR]
        self.answer = lambda x: [{**TENSOR, "data": (2 * x).tolist()}]
        self.break_off = False  # the connection ends in the middle of an answer
        self.calls = 0
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path.endswith("/ready"):
                    self.reply({})
                elif self.path == "/v2":
                    self.reply({"name": "stand-in", "version": "1", "extensions": []})
                else:
                    self.reply({"name": "net", "inputs": stand_in.inputs, "outputs": stand_in.outputs})

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.calls += 1
                x = np.array(request["inputs"][0]["data"], np.float32)
                if stand_in.break_off:
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"outputs"')
                    self.close_connection = True
                    return
                self.reply({"model_name": "net", "outputs": stand_in.answer(x)})

            def reply(self, body):
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
