"""The sample lookups of examples/config/lookup/, each against a stub that speaks that API."""

import json
import re
import ssl
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from conftest import bin_dir
from test_callout import certificate
from test_docs import SAMPLES, furnish

# Of each app, in pages of two.
GRANTS = {"acme": ["T1", "T2", "T3"], "lonely": []}


def pages(app):
    codes = GRANTS[app]
    return [codes[start : start + 2] for start in range(0, len(codes), 2)] or [[]]


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:{}".format(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    def reply(self, value, **headers):
        body = value if isinstance(value, str) else json.dumps(value)
        self.send_response(200)
        for name, text in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        assert self.headers["authorization"] == "Bearer some-secret"
        url = urlsplit(self.path)
        number = int(parse_qs(url.query).get("page", ["0"])[0])
        if url.path == "/grants":
            # GitHub's way: a bare array, and where to go on in a header.
            app = self.headers["x-app-id"]
            if app not in GRANTS:
                return self.send_error(404)
            last = number + 1 == len(pages(app))
            link = f'</grants?page={number - 1}>; rel="prev"' + ("" if last else f', </grants?page={number + 1}>; rel="next"')
            return self.reply([{"tenantId": int(code[1:])} for code in pages(app)[number]], Link=link)
        app = re.fullmatch(r"/v1/apps/([^/]+)/grants", url.path)[1]
        last = number + 1 == len(pages(app))
        items = [{"tenant_urn": f"urn:acme:tenant:{code}", "state": "active"} for code in pages(app)[number]]
        items.append({"tenant_urn": "urn:acme:tenant:GONE", "state": "withdrawn"})
        next_page = None if last else f"/v1/apps/{app}/grants?page={number + 1}"
        self.reply({"items": items, "links": {"next": next_page}})

    def do_POST(self):
        assert self.headers["authorization"] == "Bearer some-secret"
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/graphql":
            variables = body["variables"]
            number = int(variables["after"] or 0)
            last = number + 1 == len(pages(variables["app"]))
            nodes = [{"code": code} for code in pages(variables["app"])[number]]
            # As Relay has it, there is a cursor on the last page too.
            info = {"endCursor": str(number + 1), "hasNextPage": not last}
            return self.reply({"data": {"app": {"tenants": {"nodes": nodes, "pageInfo": info}}}})
        if self.path.endswith("/access/v1/search/resource"):
            assert body["action"] == {"name": "read"} and body["resource"] == {"type": "tenant"}
            assert body["subject"]["type"] == "client"
            app, number = body["subject"]["id"], int(body.get("page", {}).get("token", 0))
            results = [{"type": "tenant", "id": code} for code in pages(app)[number]]
            token = "" if number + 1 == len(pages(app)) else str(number + 1)
            return self.reply({"page": {"next_token": token}, "results": results})
        if self.path.endswith("/list-objects"):
            app = body["user"].removeprefix("client:")
            return self.reply({"objects": [f"tenant:{code}" for code in GRANTS[app]]})
        assert self.path == "/v1/permissions/resources"
        app = body["subject"]["object"]["objectId"]
        permissions = [(code, "LOOKUP_PERMISSIONSHIP_HAS_PERMISSION") for code in GRANTS[app]]
        permissions.append(("GONE", "LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION"))
        results = [{"result": {"resourceObjectId": code, "permissionship": held}} for code, held in permissions]
        self.reply("".join(json.dumps(result) + "\n" for result in results))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def stub():
    server = Stub()
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def configured(sample, url, work):
    """The sample with its API at `url`."""
    config = work / "tenantgate.yaml"
    shutil.copy(SAMPLES / "lookup" / f"{sample}.yaml", config)
    furnish(config)
    whole = yaml.safe_load(config.read_text())
    lookup = whole["tenants"]["lookup"]
    holder = lookup.get("authzen", lookup)
    holder["url"] = re.sub(r"^https?://[^/]+", url, holder["url"])
    config.write_text(yaml.safe_dump(whole))
    return config


def look_up(config, client, *options):
    """The exit code, the codes found, and all that was shown."""
    argv = [bin_dir() / "tenantgate", "lookup", "test", "--config", config, "--client", client, *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    codes = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("tenant ") and len(line.split()) > 2]
    return done.returncode, codes, done.stdout + done.stderr


@pytest.mark.parametrize("sample", ["paged", "link-header", "graphql", "authzen", "openfga", "spicedb"])
def test_a_sample_lookup_finds_all_of_its_api_s_tenants(sample, stub, tmp_path):
    config = configured(sample, stub.url, tmp_path)
    expected = [code[1:] if sample == "link-header" else code for code in GRANTS["acme"]]
    code, codes, shown = look_up(config, "acme", "--show-codes")
    assert (code, codes) == (0, expected), shown
    code, codes, shown = look_up(config, "lonely")
    assert code == 3, shown
    for secret in [*GRANTS["acme"], "GONE"]:
        assert secret not in look_up(config, "acme")[2]


def test_a_404_is_no_answer_unless_the_config_says_so(stub, tmp_path):
    config = configured("link-header", stub.url, tmp_path)
    assert look_up(config, "unknown")[0] == 3
    whole = yaml.safe_load(config.read_text())
    del whole["tenants"]["lookup"]["no_grants_status"]
    config.write_text(yaml.safe_dump(whole))
    code, _, shown = look_up(config, "unknown")
    assert code == 1 and "tenants.lookup.url: check the path; " in shown and "tenantgate.yaml:" in shown


def test_what_keeps_tls_from_coming_about_is_told_with_its_key(tmp_path):
    ca, ca_key, _ = certificate("our own CA")
    server, _, server_key = certificate("provider", "our own CA", ca_key)
    client, _, client_key = certificate("tenantgate", "our own CA", ca_key)
    (tmp_path / "ca.pem").write_text(ca)
    (tmp_path / "server.pem").write_text(server + server_key)
    stranger, _, stranger_key = certificate("nobody knows")
    for name, text in {"client": client, "stranger": stranger}.items():
        (tmp_path / f"{name}.pem").write_text(text)
    for name, text in {"client": client_key, "stranger": stranger_key}.items():
        (tmp_path / f"{name}.key").write_text(text)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.pem")
    plain, wrapped = Stub(), Stub()
    wrapped.socket = context.wrap_socket(wrapped.socket, server_side=True)
    for stub in (plain, wrapped):
        threading.Thread(target=stub.serve_forever, args=[0.05], daemon=True).start()

    config = configured("openfga", plain.url, tmp_path)
    written = config.read_text()

    def cure(url, **tls):
        whole = yaml.safe_load(written.replace(plain.url, url))
        if tls:
            whole["tenants"]["lookup"]["tls"] = tls
        config.write_text(yaml.safe_dump(whole))
        code, _, shown = look_up(config, "acme")
        return code, " ".join(line for line in shown.splitlines() if line.startswith("cure "))

    https = wrapped.url.replace("http:", "https:")
    ours = {"ca_file": "ca.pem"}
    pair = lambda name: {"cert_file": f"{name}.pem", "key_file": f"{name}.key"}
    for url, tls, expected in [
        (https, {}, "tenants.lookup.tls.ca_file: name the file with the CA"),
        (https, ours, "tenants.lookup.tls.cert_file: the server wants a certificate"),
        (https, ours | pair("stranger"), "tenants.lookup.tls.cert_file: the server does not accept this certificate"),
        (https.replace("127.0.0.1", "localhost"), ours, "tenants.lookup.url: use a name that the server's certificate has"),
        (plain.url.replace("http:", "https:"), {}, "tenants.lookup.url: what answers there does not speak TLS"),
        (wrapped.url, {}, "tenants.lookup.url: check that it leads to the provider's API, and that http:// does not go to a TLS"),
    ]:
        code, shown = cure(url, **tls)
        assert code == 1 and expected in shown, (url, tls, shown)
    cure(https, **ours, **pair("client"))
    code, codes, shown = look_up(config, "acme", "--show-codes")
    assert (code, codes) == (0, GRANTS["acme"]), shown
    for stub in (plain, wrapped):
        stub.shutdown()
        stub.server_close()
