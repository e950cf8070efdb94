"""Traces through the real Envoy: its span, ours, and what the provider gets to see of them, at an OTLP receiver."""

import re
import threading
from concurrent import futures

import grpc
import pytest
import requests
import stack
import yaml
from conftest import World
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SAMPLED = "00-{:032x}-00f067aa0ba902b7-01"


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span, with the name of the service that made it."""

    def __init__(self):
        self.spans, self.lock = [], threading.Lock()
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request, _context):
        with self.lock:
            for resource in request.resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [(named.get("service.name"), span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace, service, name=None):
        with self.lock:
            spans = [span for by, span in self.spans if by == service and span.trace_id.hex() == trace]
        return [span for span in spans if name is None or span.name == name]


def attributes(span):
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    receiver = Receiver()

    def with_traces(config):
        config["telemetry"] = {"traces": {"otlp_grpc": f"http://{receiver.address}"}}
        config["tenants"]["lookup"]["cache_ttl"] = "0s"

    with stack.Children() as children:
        world = World(children, tmp_path_factory.mktemp("traces"), with_traces, clients=["app-1", "app-2", "app-3"])
        config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
        collector = {
            "name": "collector",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "collector", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {}}}]}]},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
        }
        config["static_resources"]["clusters"].append(collector)
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["tracing"] = {
            "max_path_tag_length": 0,
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}, "timeout": "1s"},
                    "service_name": "envoy",
                },
            },
        }
        file = stack.envoy_on_any_ports(
            world.work, config, world.tenantgate, {"api": world.api.address, "collector": receiver.address}, "traced"
        )
        world.gateway = children.start(stack.Envoy, world.work, file, "traced")
        world.receiver = receiver
        yield world


def test_a_check_is_a_part_of_the_trace_that_envoy_is_asked_in(traced):
    token = traced.token(traced.client("T1"))
    asked = lambda tenant, trace: requests.get(
        f"{traced.gateway.url}/api/{tenant}/secret-path",
        headers={"Authorization": f"Bearer {token}", "traceparent": trace},
        timeout=10,
    )
    good, bad = "{:032x}".format(0xA11), "{:032x}".format(0xBAD)
    assert asked("T1", SAMPLED.format(0xA11)).status_code == 200
    assert asked("CANARY", SAMPLED.format(0xBAD)).status_code == 403
    ours = lambda trace: traced.receiver.of(trace, "tenantgate", "check")
    stack.wait_until("the spans", lambda: ours(good) and ours(bad), traced.tenantgate)
    (check,) = ours(good)
    told = attributes(check)
    assert told["tenantgate.outcome"] == "allowed" and told["tenantgate.route"] == "/api/{tenant}/**", told
    assert attributes(ours(bad)[0])["tenantgate.outcome"] == "tenant_not_granted"
    assert 0 < check.end_time_unix_nano - check.start_time_unix_nano < 1e9
    stack.wait_until("Envoy's spans", lambda: traced.receiver.of(good, "envoy"), traced.gateway)
    envoys = {span.span_id for span in traced.receiver.of(good, "envoy")}
    assert check.parent_span_id in envoys, "its parent is a span of Envoy"


def test_a_mint_leads_to_a_lookup_that_the_provider_sees(traced):
    client = traced.client("T1")
    trace = "{:032x}".format(0xC0FFEE)
    answer = requests.post(
        f"{traced.gateway.url}/oauth2/token",
        {"grant_type": "client_credentials"},
        auth=(client.id, client.secret),
        headers={"traceparent": SAMPLED.format(0xC0FFEE)},
        timeout=10,
    )
    assert answer.ok
    ours = lambda name: traced.receiver.of(trace, "tenantgate", name)
    stack.wait_until("the spans", lambda: ours("token") and ours("lookup"), traced.tenantgate)
    (token,), (lookup, *_) = ours("token"), ours("lookup")
    assert lookup.parent_span_id == token.span_id
    assert attributes(token)["tenantgate.outcome"] == "issued"
    # What is not sampled makes none.
    unsampled = SAMPLED.format(0xD0)[:-2] + "00"
    requests.post(f"{traced.tenantgate.token_url}/oauth2/token", headers={"traceparent": unsampled}, timeout=10)
    assert not traced.receiver.of("{:032x}".format(0xD0), "tenantgate")


def test_no_span_holds_a_path_a_tenant_a_token_or_a_secret(traced):
    with traced.receiver.lock:
        text = "\n".join(str(span) for by, span in traced.receiver.spans if by == "tenantgate")
    assert text and not re.search(r"CANARY|secret-path|eyJ", text)
    for secret in [*traced.secrets.values(), *traced.tokens]:
        assert secret not in text


def test_a_collector_that_is_away_costs_nobody_a_request(traced):
    token = traced.token(traced.client("T1"))
    traced.receiver.server.stop(None).wait()
    headers = {"Authorization": f"Bearer {token}", "traceparent": SAMPLED.format(0xE)}
    for _ in range(20):
        assert requests.get(f"{traced.gateway.url}/api/T1/", headers=headers, timeout=5).status_code == 200
    dropped = lambda: float(
        re.search(r"^tenantgate_spans_dropped_total (\S+)$", requests.get(f"{traced.tenantgate.admin_url}/metrics", timeout=5).text, re.M)[1]
    )
    stack.wait_until("the count", lambda: dropped() > 0, traced.tenantgate, seconds=30)
