"""The documents: sample configs, commands and links are what they claim to be."""

import base64
import datetime
import http.server
import json
import os
import re
import shutil
import subprocess
import threading

import pytest
import requests
import stack
import yaml
from conftest import ROOT, bin_dir
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from replies import REPORT

SAMPLES = ROOT / "examples/config"
CONFIGS = sorted(SAMPLES.rglob("*.yaml"))
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy/README.md"]


def write_pem(key_file, cert_file=None):
    key = ec.generate_private_key(ec.SECP256R1())
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    stack.write_secret(key_file, key.private_bytes(*formats).decode())
    if cert_file:
        name = x509.Name.from_rfc4514_string("CN=sample")
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
        certificate = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def furnish(config_file):
    """Makes every file that the config names."""
    work = config_file.parent
    (work / "secrets").mkdir(exist_ok=True)

    def visit(value):
        if isinstance(value, list):
            for item in value:
                visit(item)
        if not isinstance(value, dict):
            return
        if "cert_file" in value:
            write_pem(work / value["key_file"], work / value["cert_file"])
            shutil.copy(work / value["cert_file"], work / value["ca_file"])
            return
        for key, item in value.items():
            visit(item)
            if key == "private_key_file":
                write_pem(work / item)
            elif key == "key_file":
                stack.tenantgate(bin_dir(), "keys", "digest", "--out", work / item)
            elif key.endswith("_file"):
                stack.write_secret(work / item, "some-secret")

    config = yaml.safe_load(config_file.read_text())
    visit(config)
    stack.tenantgate(bin_dir(), "keys", "generate", "--dir", work / config["issuer"]["signing_keys"])
    stack.tenantgate(bin_dir(), "clients", "add", "--file", work / config["clients"]["file"], "--id", "app")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(SAMPLES)))
def test_a_sample_config_is_valid(config, tmp_path):
    copy = tmp_path / "tenantgate.yaml"
    shutil.copy(config, copy)
    furnish(copy)
    stack.tenantgate(bin_dir(), "validate", "--config", copy)


def test_there_are_sample_configs():
    assert len(CONFIGS) >= 8


def select_examples():
    """The rows of the table in docs/lookup.md that shows answers and what each config finds in them."""
    text = (ROOT / "docs/lookup.md").read_text()
    rows = re.findall(r"^\| `([{\[].*?)` \| (`select: .*?`) \| ([\w, ]+) \|$", text, re.MULTILINE)
    assert len(rows) >= 9
    keys = lambda cell: dict(key.split(": ", 1) for key in re.findall(r"`(.*?)`", cell))
    return [(answer, keys(cell), codes) for answer, cell, codes in rows]


@pytest.mark.parametrize("answer, keys, codes", select_examples())
def test_select_finds_what_the_document_says(answer, keys, codes, tmp_path):
    class Directory(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *arguments):
            pass

    copy = tmp_path / "tenantgate.yaml"
    shutil.copy(SAMPLES / "lookup/static.yaml", copy)
    furnish(copy)
    with http.server.HTTPServer(("127.0.0.1", 0), Directory) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        config = yaml.safe_load(copy.read_text())
        url = f"http://127.0.0.1:{server.server_port}/{{client_id}}"
        config["tenants"]["lookup"] = {"url": url, **keys}
        copy.write_text(yaml.safe_dump(config))
        lookup = ["lookup", "test", "--config", copy, "--client", "app", "--show-codes"]
        shown = stack.tenantgate(bin_dir(), *lookup)
    assert re.findall(r"^tenant +\w+ (\w+)$", shown, re.MULTILINE) == codes.split(", ")


def blocks(document, marker):
    """The `sh` blocks that begin with `# MARKER`, by what follows it."""
    text = (ROOT / document).read_text()
    found = re.findall(rf"^```sh\n# {marker}: (\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    return dict(found)


def run(script, cwd, **environment):
    path = f"{bin_dir()}:{os.environ['PATH']}"
    argv = ["bash", "-euo", "pipefail", "-c", script]
    environment = {**os.environ, "PATH": path, **environment}
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def move_to_any_ports(config_file, provider):
    config = yaml.safe_load(config_file.read_text())
    config_file.write_text(yaml.safe_dump(stack.on_any_ports(config, provider)))


def start_envoy(children, work, tenantgate, provider):
    config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    filters = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (check,) = [entry["typed_config"] for entry in filters if entry["name"].endswith("ext_authz")]
    check["allowed_headers"]["patterns"].append({"exact": "x-api-key"})
    file = stack.envoy_on_any_ports(work, config, tenantgate, {"api": provider.address})
    return children.start(stack.Envoy, work, file)


def test_five_minutes_from_the_readme(children, tmp_path):
    steps = blocks("README.md", "five-minutes")
    assert list(steps) == ["1", "2", "3", "4", "6", "7"]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    provider = children.start(stack.Provider, tmp_path, bin_dir())
    run(steps["1"], tmp_path)
    work = tmp_path / "my-gate"
    move_to_any_ports(work / "tenantgate.yaml", provider)
    shown = run(steps["2"] + steps["3"] + steps["4"], work)
    assert re.search(r"^result +granted after .* tenants: 2$", shown, re.MULTILINE), shown
    tenantgate = children.start(stack.Tenantgate, work, bin_dir())
    envoy = start_envoy(children, work, tenantgate, provider)
    shown = run((steps["6"] + steps["7"]).replace("http://127.0.0.1:10000", envoy.url), work)
    assert re.findall(r"^HTTP/1.1 (\d+)", shown, re.MULTILINE) == ["200", "403"]
    assert re.findall(r"^decision +(.*)$", shown, re.MULTILINE) == ["allow", "allow"]


def test_faults_are_set_and_cleared_as_documented(children, tmp_path):
    provider = children.start(stack.Provider, tmp_path, bin_dir())
    shown = run(blocks("docs/lookup.md", "faults")["play"].replace("http://127.0.0.1:9300", provider.url), tmp_path)
    assert [json.loads(line)["lookup"] for line in shown.splitlines()] == [
        {"kind": "slow", "times": None},
        {"kind": "500", "times": 1},
        None,
    ]
    assert provider.control("GET", "state")["faults"] == {"lookup": None, "token": None}


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_the_config_that_migrating_from_apigee_arrives_at(children, tmp_path):
    steps = blocks("docs/migrating-from-apigee.md", "apigee")
    app, secret = "5jUAdGv9pBouF0wOH5keAVI35GBtx3dT", "a-consumer-secret"
    provider = children.start(stack.Provider, tmp_path, bin_dir())
    provider.control("PUT", f"clients/{app}", {"tenants": ["T1001"], "plan": "gold"})
    config = yaml.safe_load((SAMPLES / "apigee/tenantgate.yaml").read_text())
    stack.prepare(tmp_path, bin_dir(), stack.on_any_ports(config, provider), {})
    run(steps["import"], tmp_path, CONSUMER_SECRET=secret)
    tenantgate = children.start(stack.Tenantgate, tmp_path, bin_dir())
    envoy = start_envoy(children, tmp_path, tenantgate, provider)

    def mint(secret):
        form = {"grant_type": "client_credentials"}
        return requests.post(f"{envoy.url}/oauth2/token", data=form, auth=(app, secret), timeout=10)

    def call(path, **headers):
        return requests.get(envoy.url + path, headers=headers, timeout=10).status_code

    answer = mint(secret).json()
    assert (answer["expires_in"], answer["plan"], "tenant_list" in answer) == (1800, "gold", False)
    claims = claims_of(answer["access_token"])
    assert claims["plan"] == "gold"
    assert [len(digest) for digest in claims["tenant_list"]] == [20]
    bearer = f"Bearer {answer['access_token']}"
    assert call(REPORT.format("T1001"), authorization=bearer) == 200
    assert call(REPORT.format("T1001").replace("/reports/", "/Reports/"), authorization=bearer) == 200
    assert call(REPORT.format("T1002"), authorization=bearer) == 403

    (new_secret,) = re.findall(r"^client_secret: +(\S+)$", run(steps["rotate"], tmp_path), re.MULTILINE)
    stack.wait_until("the end of the old secret", lambda: mint(secret).status_code == 401, tenantgate)
    assert mint(new_secret).status_code == 200
    key = {"x-api-key": new_secret}
    stack.wait_until("a first lookup", lambda: call(REPORT.format("T1001"), **key) == 200, tenantgate)
    assert call(REPORT.format("T1002"), **key) == 403
    assert call(REPORT.format("T1001"), **{"x-api-key": app}) == 401


def anchors(document):
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_sources_that_a_document_names_exist(document):
    tops = ("src", "tests", "module", "benches", "proto", "examples", "fuzz")
    files = [str(file.relative_to(ROOT)) for top in tops for file in (ROOT / top).rglob("*.*")]
    named = set(re.findall(r"`([\w/-]+\.(?:rs|proto))`", document.read_text()))
    assert len(named) > 20 or document.name != "ARCHITECTURE.md"
    assert {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)} == set()


def prose(document):
    """The lines of a document with their numbers, without code and tables."""
    code = False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        code ^= line.startswith("```")
        if not code and not line.startswith("|"):
            yield number, line


def test_lines_fit_the_screen_that_they_are_read_on():
    folders = ["src", "tests", "benches", "examples", "module/src", "fuzz/fuzz_targets"]
    sources = [file for folder in folders for file in (ROOT / folder).rglob("*.rs")]
    assert len(sources) > 200
    lines = [(source, 100, enumerate(source.read_text().splitlines(), 1)) for source in sources]
    lines += [(document, 120, prose(document)) for document in DOCUMENTS]
    long = [f"{file}:{number}" for file, most, numbered in lines for number, line in numbered if len(line) > most]
    assert not long, "\n".join(long)
