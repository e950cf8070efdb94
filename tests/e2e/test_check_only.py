"""A replica that only checks: it verifies our own tokens by the keys that another process publishes, follows the state with a
role that may only read, and holds no private key."""

import hashlib
import shutil
import sys
import time
from pathlib import Path

import pytest
import requests
import stack
import yaml
from conftest import ROOT, World, bin_dir
from test_issuers import HOST, KeyServer
from test_tls import Authority

sys.path.insert(0, str(ROOT / "tests"))

import postgres  # noqa: E402  (found through the line above)

pytestmark = pytest.mark.skipif(postgres.installation() is None, reason="NOT TESTED WITH POSTGRESQL: run `make tools`")

def grants():
    """The lines of docs/fleet.md."""
    page = (ROOT / "docs/fleet.md").read_text()
    return page.split("```sql\n")[1].split("```")[0]


class Fleet:
    def __init__(self, children, work):
        self.server = postgres.Postgres()
        children.callback(self.server.close)
        self.server.sql("CREATE DATABASE state")
        (work / "mint").mkdir()

        def with_state(config):
            config["state"] = {"postgres": {"url": self.server.url("state")}, "key_file": "secrets/state.key"}
            config["management"] = {"token_file": "secrets/management-token"}
            config["listen"]["management"] = stack.ANY_PORT

        self.world = World(children, work / "mint", with_state, clients=["app-1"])
        self.server.sql(grants(), "state")
        self.checker, self.envoy = self.start_checker(children, work / "check", {})

    def start_checker(self, children, work, issuer):
        """A checker, and an Envoy before it, with these settings of the issuer, or those that get the keys where they are minted."""
        minting = self.world.tenantgate
        config = yaml.safe_load((self.world.work / "tenantgate.yaml").read_text())
        del config["listen"]["token"], config["listen"]["management"], config["management"], config["clients"]
        del config["issuer"]["signing_keys"]
        config["issuer"] |= issuer or {"jwks_url": f"{minting.token_url}/oauth2/jwks"}
        config["state"]["snapshot_file"] = "state.snapshot"
        config["state"]["postgres"]["url"] = self.server.url("state", user="tenantgate_check")
        (work / "secrets").mkdir(parents=True)
        for name in ("tenant-digest.key", "state.key", "lookup-client"):
            shutil.copy(self.world.work / "secrets" / name, work / "secrets" / name)
        (work / "tenantgate.yaml").write_text(yaml.safe_dump(config))
        checker = children.start(stack.Tenantgate, work, bin_dir())
        assert not checker.ports["token"]
        checker.ports["token"] = minting.ports["token"]
        file = stack.envoy_on_any_ports(
            work, yaml.safe_load(stack.ENVOY_CONFIG.read_text()), checker, {"api": self.world.api.address}
        )
        return checker, children.start(stack.Envoy, work, file)

    def manage(self, path, body):
        url = f"{self.world.tenantgate.management_url}/v1/{path}"
        answer = requests.post(url, json=body, headers={"Authorization": f"Bearer {stack.MANAGEMENT_TOKEN}"}, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def mint(self, client, secret):
        form = {"grant_type": "client_credentials"}
        answer = requests.post(f"{self.world.url}/oauth2/token", form, auth=(client, secret), timeout=10)
        answer.raise_for_status()
        return answer.json()["access_token"]

    def status(self, token, tenant="T1", envoy=None):
        return requests.get(f"{(envoy or self.envoy).url}/api/{tenant}/", headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code

    def becomes(self, token, status, seconds):
        deadline = time.monotonic() + seconds
        while (found := self.status(token)) != status:
            assert time.monotonic() < deadline, f"still {found} after {seconds} s"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with stack.Children() as children:
        yield Fleet(children, tmp_path_factory.mktemp("check-only"))


def test_it_checks_what_another_process_mints_and_feels_what_is_withdrawn(fleet):
    made = fleet.manage("clients", {"client_id": "by-call", "scope": "reports.read", "tenants": ["T1"]})
    token = fleet.mint("by-call", made["client_secret"])
    fleet.becomes(token, 200, 10)
    assert fleet.status(token, "T2") == 403
    fleet.manage("grants:withdraw", {"client_id": "by-call", "tenant": "T1"})
    fleet.becomes(token, 403, 2)
    fleet.manage("grants:restore", {"client_id": "by-call", "tenant": "T1"})
    fleet.becomes(token, 200, 2)
    fleet.manage("clients/by-call:block", {})
    fleet.becomes(token, 401, 2)
    fleet.manage("clients/by-call:unblock", {})
    fleet.becomes(token, 200, 2)


def test_its_keys_may_be_behind_mutual_tls_and_until_it_has_them_a_token_is_a_503(fleet, tmp_path):
    made = fleet.manage("clients", {"client_id": "early", "scope": "reports.read", "tenants": ["T1"]})
    token = fleet.mint("early", made["client_secret"])
    authority = Authority()
    keys = requests.get(f"{fleet.world.tenantgate.token_url}/oauth2/jwks", timeout=5).json()["keys"]
    server = KeyServer(authority.issue(tmp_path / "tls", HOST), keys)
    client = authority.issue(tmp_path / "client", "tenantgate")
    issuer = {
        "jwks_url": f"https://{HOST}/later",
        "tls": {"ca_file": str(client / "ca.crt"), "cert_file": str(client / "tls.crt"), "key_file": str(client / "tls.key")},
        "proxy": "http://127.0.0.1:{}".format(server.proxy.getsockname()[1]),
    }
    with stack.Children() as children:
        _, envoy = fleet.start_checker(children, tmp_path / "check", issuer)
        assert fleet.status(token, envoy=envoy) == 503
        server.documents["/later"] = server.documents["/jwks"]
        stack.wait_until("the keys", lambda: fleet.status(token, envoy=envoy) == 200, envoy)


def test_it_keeps_no_digest_of_a_stored_client_s_secret(fleet):
    made = fleet.manage("clients", {"client_id": "digested", "scope": "reports.read", "tenants": ["T1"]})
    fleet.becomes(fleet.mint("digested", made["client_secret"]), 200, 10)
    digest = hashlib.sha256(made["client_secret"].encode()).hexdigest()
    rows = fleet.server.sql("SELECT body FROM tenantgate_record WHERE client = 'digested'", "state")
    assert digest in rows, "the digest is not where this test thinks it is"
    kept = (fleet.world.work.parent / "check/state.snapshot").read_text()
    assert "digested" in kept and digest not in kept


def test_its_role_writes_no_withdrawal_and_no_client(fleet):
    for table in ("tenantgate_record", "tenantgate_feed", "tenantgate_head", "tenantgate_audit"):
        with pytest.raises(RuntimeError, match=f"permission denied for table {table}"):
            fleet.server.sql(f"SET ROLE tenantgate_check; DELETE FROM {table}", "state")


def test_a_new_key_is_known_and_a_key_that_is_gone_is_gone_within_seconds(fleet):
    made = fleet.manage("clients", {"client_id": "rotated", "scope": "reports.read", "tenants": ["T1"]})
    old = fleet.mint("rotated", made["client_secret"])
    fleet.becomes(old, 200, 10)
    keys = fleet.world.work / "keys"
    before = set(keys.iterdir())
    stack.tenantgate(bin_dir(), "keys", "generate", "--dir", keys, "--activate-after", "0s")
    deadline = time.monotonic() + 15
    while (new := fleet.mint("rotated", made["client_secret"])).split(".")[0] == old.split(".")[0]:
        assert time.monotonic() < deadline, "the new key does not sign"
        time.sleep(0.2)
    fleet.becomes(new, 200, 15)
    for file in before:
        file.unlink()
    fleet.becomes(old, 401, 20)
    assert fleet.status(new) == 200


def test_it_holds_no_private_key(fleet):
    assert not list(Path(fleet.checker.log).parent.glob("keys*"))
    told = requests.get(f"{fleet.checker.admin_url}/readyz?verbose", timeout=5)
    assert told.status_code == 200 and "state: ok" in told.text, told.text
    assert "issuer_keys:" in told.text and "signing_keys" not in told.text
