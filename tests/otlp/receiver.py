"""An OTLP receiver for tests. It decodes requests with the Python classes that protoc generates from OpenTelemetry's definitions.

Prints "listening PORT", then writes a JSON line to standard error for each request: its headers, and each data point or log
record with its resource and metric. `--answers` lists the responses to the first requests with metrics: an HTTP status, a gRPC
status name, or `partial:N`. All other requests are accepted.
"""

import argparse
import gzip
import http.server
import json
import ssl
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_service_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service_grpc
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

LOCK = threading.Lock()


def value_of(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind)


def attributes_of(pairs):
    attributes = {pair.key: value_of(pair.value) for pair in pairs}
    assert len(attributes) == len(pairs), f"duplicate attribute: {pairs}"
    return attributes


def points_of(request):
    for resource_metrics in request.resource_metrics:
        resource = attributes_of(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            names = [metric.name for metric in scope_metrics.metrics]
            assert len(set(names)) == len(names), f"duplicate metric: {names}"
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                common = {
                    "resource": resource,
                    "scope": scope_metrics.scope.name,
                    "schema": resource_metrics.schema_url,
                    "metric": metric.name,
                    "unit": metric.unit,
                    "description": metric.description,
                    "kind": kind,
                }
                if kind != "gauge":
                    temporality = metrics_pb2.AggregationTemporality.Name(data.aggregation_temporality)
                    common["temporality"] = temporality.removeprefix("AGGREGATION_TEMPORALITY_").lower()
                if kind == "sum":
                    common["monotonic"] = data.is_monotonic
                for point in data.data_points:
                    found = {
                        **common,
                        "attributes": attributes_of(point.attributes),
                        "start": point.start_time_unix_nano,
                        "time": point.time_unix_nano,
                    }
                    if kind == "exponential_histogram":
                        found |= {
                            "count": point.count,
                            "sum": point.sum,
                            "scale": point.scale,
                            "zero_count": point.zero_count,
                            "offset": point.positive.offset,
                            "buckets": list(point.positive.bucket_counts),
                        }
                    else:
                        found["value"] = getattr(point, point.WhichOneof("value"))
                    yield found


def records_of(request):
    for resource_logs in request.resource_logs:
        resource = attributes_of(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                yield {
                    "resource": resource,
                    "scope": scope_logs.scope.name,
                    "schema": resource_logs.schema_url,
                    "event": record.event_name,
                    "severity": record.severity_text,
                    "number": logs_pb2.SeverityNumber.Name(record.severity_number),
                    "body": value_of(record.body),
                    "attributes": attributes_of(record.attributes),
                    "time": record.time_unix_nano,
                    "observed": record.observed_time_unix_nano,
                }


class Receiver:
    def __init__(self, answers):
        self.answers = answers

    def take(self, protocol, headers, message):
        """Returns the next response. Data points are recorded only if the request is accepted."""
        with LOCK:
            answer = self.answers.pop(0) if self.answers else "ok"
            taken = answer == "ok" or answer.startswith("partial:")
            points = list(points_of(message)) if taken else []
            self.write(protocol, headers, answer, points=points)
        response = service.ExportMetricsServiceResponse()
        if answer.startswith("partial:"):
            response.partial_success.rejected_data_points = int(answer.split(":")[1])
            response.partial_success.error_message = "not these"
        return answer if not taken else "ok", response

    def take_logs(self, protocol, headers, message):
        with LOCK:
            self.write(protocol, headers, "ok", records=list(records_of(message)))
        return "ok", logs_service.ExportLogsServiceResponse()

    def write(self, protocol, headers, answer, points=(), records=()):
        line = {
            "protocol": protocol,
            "headers": headers,
            "answer": answer,
            "points": list(points),
            "records": list(records),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)


def serve_http(receiver, arguments):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert headers["content-type"] == "application/x-protobuf", headers
            if self.path.endswith("logs"):
                request, take = logs_service.ExportLogsServiceRequest, receiver.take_logs
            else:
                request, take = service.ExportMetricsServiceRequest, receiver.take
            answer, response = take(f"http {self.path}", headers, request.FromString(body))
            content = response.SerializeToString() if answer == "ok" else b"no, thank you"
            self.send_response(200 if answer == "ok" else int(answer))
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    if arguments.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=arguments.client_authority)
        context.load_cert_chain(arguments.certificate, arguments.key)
        if arguments.client_authority:
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"listening {server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()


def serve_grpc(receiver, arguments):
    def answer(take, request, context):
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        answer, response = take("grpc", headers, request)
        if answer != "ok":
            context.abort(grpc.StatusCode[answer], "no, thank you")
        return response

    class Metrics(service_grpc.MetricsServiceServicer):
        def Export(self, request, context):
            return answer(receiver.take, request, context)

    class Logs(logs_service_grpc.LogsServiceServicer):
        def Export(self, request, context):
            return answer(receiver.take_logs, request, context)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    service_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    logs_service_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    address = f"127.0.0.1:{arguments.port}"
    if arguments.certificate:
        read = lambda path: open(path, "rb").read() if path else None
        credentials = grpc.ssl_server_credentials(
            [(read(arguments.key), read(arguments.certificate))],
            read(arguments.client_authority),
            require_client_auth=bool(arguments.client_authority),
        )
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    print(f"listening {port}", file=sys.stderr, flush=True)
    server.wait_for_termination()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=["grpc", "http"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--answers", default="", help="responses, separated by commas")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--client-authority")
    arguments = parser.parse_args()
    receiver = Receiver([answer for answer in arguments.answers.split(",") if answer])
    {"grpc": serve_grpc, "http": serve_http}[arguments.protocol](receiver, arguments)


if __name__ == "__main__":
    sys.exit(main())
