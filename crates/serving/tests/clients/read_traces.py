"""Prints what is in requests of traces, as OpenTelemetry's own messages read them."""

import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def pairs(attributes):
    for attribute in attributes:
        value = attribute.value
        print(f"  {attribute.key}={getattr(value, value.WhichOneof('value'))}")


def assert_known(message):
    assert len(UnknownFieldSet(message)) == 0, message


for path in sys.argv[1:]:
    request = ExportTraceServiceRequest()
    with open(path, "rb") as file:
        request.ParseFromString(file.read())
    assert_known(request)
    for of_resource in request.resource_spans:
        pairs(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                assert_known(span)
                assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
                kind = Span.SpanKind.Name(span.kind)
                parent = span.parent_span_id.hex()
                print(kind, span.trace_id.hex(), parent, span.trace_state, span.name)
                pairs(span.attributes)
