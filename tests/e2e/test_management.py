"""The management API: docs/management.md as printed there, and its command line."""

import json
import os
import re
import sqlite3
import subprocess

import openapi_spec_validator
import pytest
import requests
import stack
import yaml
from authlib.integrations.requests_client import OAuth2Session
from conftest import ROOT, World, bin_dir, check_secrecy
from test_tls import Authority

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def managed(tmp_path_factory):
    work = tmp_path_factory.mktemp("managed")

    def with_management(config):
        config["state"] = {"sqlite": "state/tenantgate.db", "key_file": "secrets/state.key"}
        config["management"] = {"token_file": "secrets/management"}
        config["listen"]["management"] = stack.ANY_PORT
        (work / "secrets").mkdir()
        stack.write_secret(work / "secrets/management", TOKEN)

    with stack.Children() as children:
        world = World(children, work, with_management)
        yield world
        check_secrecy(world)
        assert TOKEN not in world.logs()


@pytest.fixture
def admin(managed):
    def admin(*argv, stdin=None):
        argv = [bin_dir() / "tenantgate", "admin", *argv, "--url", managed.tenantgate.management_url]
        argv += ["--token-file", managed.work / "secrets/management"]
        argv = [str(part) for part in argv]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, input=stdin)

    def output(*argv, **options):
        done = admin(*argv, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    admin.output = output
    admin.json = lambda *argv: json.loads(output(*argv, "--output", "json"))
    return admin


def test_a_client_s_life_from_the_command_line(managed, admin, tmp_path):
    out = tmp_path / "secret"
    shown = admin.output("clients", "add", "cli-app", "--scope", "reports.read", "--tenant", "T1", "--secret-out", out)
    assert out.stat().st_mode & 0o777 == 0o600
    secret = out.read_text().strip()
    assert secret not in shown
    token_url = f"{managed.url}/oauth2/token"
    mint = lambda secret: requests.post(token_url, {"grant_type": "client_credentials"}, auth=("cli-app", secret))
    token = mint(secret).json()["access_token"]
    managed.tokens.add(token)
    check = lambda: managed.get("/api/T1/", token).status_code
    assert check() == 200

    again = admin("clients", "add", "cli-app", "--secret-out", out)
    assert (again.returncode, "--secret-out" in again.stderr) == (1, True), "the file is not overwritten"
    exists = admin("clients", "add", "--id", "cli-app")
    assert (exists.returncode, "409 conflict" in exists.stderr) == (1, True)

    admin.output("clients", "block", "cli-app")
    assert check() == 401
    assert admin.json("clients", "show", "--id", "cli-app")["blocked"] is True
    admin.output("clients", "unblock", "--client", "cli-app")
    assert check() == 200
    admin.output("grants", "withdraw", "--client", "cli-app", "--tenant", "-", stdin="T1\n")
    assert check() == 403
    admin.output("grants", "restore", "--client", "cli-app", "--tenant", "T1")
    assert check() == 200
    rotated = admin.json("clients", "rotate-secret", "cli-app")
    managed.secrets["cli-app"] = rotated["client_secret"]
    assert mint(secret).ok and mint(rotated["client_secret"]).ok
    older = rotated["credentials"][0]["credential_id"]
    admin.output("clients", "revoke-secret", "cli-app", "--credential", older)
    assert (mint(secret).status_code, mint(rotated["client_secret"]).status_code) == (401, 200)
    admin.output("clients", "revoke-tokens", "cli-app")
    assert check() == 401
    listed = {client["client_id"]: client["source"] for client in admin.json("clients", "list")["clients"]}
    assert listed["cli-app"] == "state" and listed["app-000"] == "file"
    assert re.search(r"^cli-app +state +approved +reports.read +1$", admin.output("clients", "list"), re.MULTILINE)
    admin.output("clients", "delete", "cli-app")
    gone = admin("clients", "show", "cli-app")
    assert (gone.returncode, "404 not_found" in gone.stderr) == (1, True)


def test_mistakes_on_the_command_line_are_named(managed, admin, tmp_path):
    url = managed.tenantgate.management_url
    wrong = tmp_path / "wrong"
    wrong.write_text("another token\n")
    tool = [bin_dir() / "tenantgate", "admin", "clients", "list"]
    for argv, told in [
        ([], "--url: missing"),
        (["--url", url], "--token-file: missing"),
        (["--url", "nowhere", "--token-file", wrong], "--url: not a URL"),
        (["--url", url, "--token-file", tmp_path / "none"], "cannot be read"),
        (["--url", url, "--token-file", wrong], "401 invalid_token"),
        (["--url", "http://127.0.0.1:9", "--token-file", wrong], "cannot be reached"),
        (["--url", managed.provider.url, "--token-file", wrong], "not that of a management API"),
    ]:
        done = subprocess.run([*tool, *argv], capture_output=True, text=True, timeout=20)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr


def test_a_decision_of_the_running_process(managed, admin):
    client = managed.client("T1")
    token = managed.token(client)
    asked = lambda *argv: admin("explain", *argv)
    allowed = asked("--path", "/api/T1/", "--token", token)
    assert (allowed.returncode, "decision    allow" in allowed.stdout) == (0, True), allowed.stdout + allowed.stderr
    denied = asked("--path", "/api/T2/", "--token", token)
    assert (denied.returncode, "deny: tenant_not_granted" in denied.stdout) == (3, True)
    assert asked("--client", client.id, "--tenant", "T1").returncode == 0
    unknown = asked("--client", managed.client("T1").id, "--tenant", "T1", "--output", "json")
    assert (unknown.returncode, json.loads(unknown.stdout)["decision"]) == (1, "unknown")


def test_who_used_a_tenant(managed, admin):
    client = managed.client("T77")
    token = managed.token(client)
    assert [managed.get(path, token).status_code for path in ("/api/T77/", "/api/T77/", "/api/T78/")] == [200, 200, 403]
    rows = admin.json("usage", "--tenant", "T77")["rows"]
    assert [(row["client_id"], row["outcome"], row["count"]) for row in rows] == [(client.id, "allowed", 2)]
    assert rows[0]["tenant"] in admin.output("usage", "--client", client.id)


def test_a_token_of_our_own_issuer_opens_its_part_only(managed, admin):
    made = admin.json("clients", "add", "portal", "--scope", "tenantgate:grants", "--tenant", "T1")
    managed.secrets["portal"] = made["client_secret"]
    form = {"grant_type": "client_credentials"}
    token = requests.post(f"{managed.url}/oauth2/token", form, auth=("portal", made["client_secret"])).json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    url = managed.tenantgate.management_url
    withdrawal = {"client_id": "app-001", "tenant": "T1"}
    assert requests.post(f"{url}/v1/grants:withdraw", json=withdrawal, headers=headers).status_code == 200
    refused = requests.get(f"{url}/v1/clients", headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_an_oauth_library_introspects_and_revokes(managed):
    client = managed.client("T1")
    session = OAuth2Session(client.id, client.secret, token_endpoint_auth_method="client_secret_basic")
    token = session.fetch_token(f"{managed.url}/oauth2/token", grant_type="client_credentials")["access_token"]
    managed.tokens.add(token)
    ask = lambda: session.introspect_token(f"{managed.url}/oauth2/introspect", token=token).json()
    shown = ask()
    assert (shown["active"], shown["client_id"]) == (True, client.id)
    assert managed.get("/api/T1/", token).status_code == 200
    session.revoke_token(f"{managed.url}/oauth2/revoke", token=token).raise_for_status()
    assert ask() == {"active": False}
    assert managed.get("/api/T1/", token).status_code == 401


def test_through_envoy_for_the_portal_only(managed, admin, tmp_path):
    authority = Authority()
    authority.issue(tmp_path, "tenantgate.example.com")
    portal = authority.issue(tmp_path / "portal", "portal.example.com")
    other = authority.issue(tmp_path / "other", "other.example.com")
    stranger = Authority().issue(tmp_path / "stranger", "portal.example.com")
    config = yaml.safe_load((ROOT / "envoy/management.yaml").read_text().replace("/etc/envoy/management", str(tmp_path)))
    file = stack.envoy_on_any_ports(tmp_path, config, managed.tenantgate, {})
    envoy = managed.children.start(stack.Envoy, tmp_path, file)
    port = envoy.address.rsplit(":", 1)[1]

    def clients(folder, token=TOKEN):
        cert = (folder / "tls.crt", folder / "tls.key") if folder else None
        with requests.Session() as session:
            session.mount("https://", NamedAdapter("tenantgate.example.com"))
            headers = {"Authorization": f"Bearer {token}", "Host": "tenantgate.example.com"}
            url = f"https://127.0.0.1:{port}/v1/clients"
            return session.get(url, headers=headers, cert=cert, verify=tmp_path / "ca.crt", timeout=10).status_code

    assert clients(portal) == 200
    assert clients(portal, "another") == 401
    for who in (None, other, stranger):
        with pytest.raises(requests.ConnectionError):
            clients(who)


def test_a_client_certificate_is_enough_where_the_config_says_so(tmp_path):
    authority = Authority()
    authority.issue(tmp_path, "localhost")
    portal = authority.issue(tmp_path / "portal", "portal.example.com")
    unnamed = authority.issue(tmp_path / "unnamed", "other.example.com")
    stranger = Authority().issue(tmp_path / "stranger", "portal.example.com")
    tls = {"cert_file": str(tmp_path / "tls.crt"), "key_file": str(tmp_path / "tls.key"),
           "client_ca_file": str(tmp_path / "ca.crt"), "client_identities": ["portal.example.com"]}

    def with_certificates(config):
        config["state"] = {"sqlite": "state/tenantgate.db", "key_file": "secrets/state.key"}
        config["management"] = {"client_certificates": True}
        config["listen"]["management"] = {"address": stack.ANY_PORT, "tls": tls}

    with stack.Children() as children:
        work = tmp_path / "work"
        work.mkdir()
        world = World(children, work, with_certificates)
        port = world.tenantgate.ports["management"].rsplit(":", 1)[1]
        url = f"https://localhost:{port}"

        def clients(folder, **headers):
            cert = folder and (folder / "tls.crt", folder / "tls.key")
            asked = requests.get(f"{url}/v1/clients", headers=headers, cert=cert, verify=tmp_path / "ca.crt", timeout=10)
            return asked.status_code

        assert clients(portal) == 200
        # A token that is shown decides, and so does another credential: neither falls back to the certificate.
        assert clients(portal, Authorization=f"Bearer {world.token(world.client('T1'))}") == 403
        assert clients(portal, Authorization="Bearer nonsense") == 401
        assert clients(portal, Authorization="Basic YTpi") == 401
        for who in (None, unnamed, stranger):
            with pytest.raises(requests.ConnectionError):
                clients(who)

        def admin(*argv):
            argv = [bin_dir() / "tenantgate", "admin", *argv, "--url", url, "--ca-file", tmp_path / "ca.crt"]
            return subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=20)

        assert "--token-file: missing" in admin("clients", "list").stderr
        blocked = admin("clients", "block", "app-001", "--cert-file", portal / "tls.crt", "--key-file", portal / "tls.key")
        assert blocked.returncode == 0, blocked.stderr
    with sqlite3.connect(work / "state/tenantgate.db") as database:
        rows = database.execute("SELECT actor FROM tenantgate_audit").fetchall()
    assert rows == [("certificate portal.example.com",)]


class NamedAdapter(requests.adapters.HTTPAdapter):
    """Expects a server's certificate for this name, whatever the address."""

    def __init__(self, name):
        self.name = name
        super().__init__()

    def init_poolmanager(self, *argv, **options):
        super().init_poolmanager(*argv, assert_hostname=self.name, server_hostname=self.name, **options)


def test_the_lines_of_the_page_do_what_they_say(managed):
    """Each block's lines, in their order; a comment behind a line has the status that it gets."""
    page = (ROOT / "docs/management.md").read_text()
    blocks = re.findall(r"^```sh\n# management: (\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    managed.provider.control("PUT", "clients/app-002", {"tenants": ["T1001"]})
    told = {"URL": managed.tenantgate.management_url, "TOKEN": TOKEN}
    for name, lines in blocks:
        script = 'curl() { command curl -s -o answer -w "%{http_code}\\n" "$@"; cat answer >&2; }\n' + lines
        done = subprocess.run(
            ["bash", "-euc", script], cwd=managed.work, env=os.environ | told, capture_output=True, text=True, timeout=30
        )
        wanted = re.findall(r"# (\d{3})\b", lines)
        assert (done.returncode, done.stdout.split()) == (0, wanted), f"{name}: {done.stdout}{done.stderr}"


def test_the_description_is_valid_and_nothing_that_fits_it_is_a_fault_of_ours(managed):
    url = f"{managed.tenantgate.management_url}/v1/openapi.json"
    described = requests.get(url, timeout=10).json()
    assert described["openapi"].startswith("3.1.")
    openapi_spec_validator.validate(described)
    # What the page shows is what is described, and the other way round.
    page = (ROOT / "docs/management.md").read_text()
    assert len(described["paths"]) >= 12
    for path in described["paths"]:
        words = path.removeprefix("/v1/").split("{client_id}")
        assert all(word.strip("/") in page for word in words), path
    argv = [ROOT / ".tools/venv/bin/schemathesis", "run", url, "--header", f"Authorization: Bearer {TOKEN}", "--seed", "1"]
    argv += ["--max-examples", "25", "--phases", "fuzzing", "--workers", "2", "--generation-allow-x00", "false"]
    argv += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=300, cwd=managed.work)
    assert done.returncode == 0, done.stdout[-6000:]
