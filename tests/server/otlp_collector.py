"""An OpenTelemetry collector inside the test: a gRPC server that keeps the spans it is sent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on a free port while it is entered."""

    def __enter__(self) -> Collector:
        self._spans: list[Any] = []
        self._arrived = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None)

    def Export(self, request: Any, context: Any) -> Any:
        """What the exporter calls."""
        with self._arrived:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def span_of(self, trace: str) -> Any:
        """Wait for the span `llm_request` of a trace, given in hexadecimal."""

        def found() -> list[Any]:
            name = "llm_request"
            return [s for s in self._spans if s.name == name and s.trace_id.hex() == trace]

        with self._arrived:
            assert self._arrived.wait_for(found, timeout=60), f"no span of {trace}"
            return found()[0]


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes, by name."""
    kind = {each.key: each.value.WhichOneof("value") for each in span.attributes}
    return {each.key: getattr(each.value, kind[each.key]) for each in span.attributes}
