"""The commands, run as people run them."""

import copy
import json
import stat
import subprocess

import pytest
import stack
import yaml
from conftest import bin_dir
from replies import REPORT


def tenantgate(*arguments, stdin=""):
    argv = [str(part) for part in (bin_dir() / "tenantgate", *arguments)]
    return subprocess.run(argv, capture_output=True, text=True, input=stdin, timeout=30)


@pytest.fixture
def config(tmp_path):
    """The demo's config with all its files; returns the parsed config and a function that writes a changed one."""
    parsed = yaml.safe_load(stack.CONFIG.read_text())
    stack.prepare(tmp_path, bin_dir(), yaml.safe_dump(parsed), {"acme-analytics": ["--scope", "reports.read"]})

    def write(changed):
        file = tmp_path / "tenantgate.yaml"
        file.write_text(yaml.safe_dump(changed))
        return file

    return copy.deepcopy(parsed), write


def test_validate_accepts_the_demo_config(config):
    parsed, write = config
    done = tenantgate("validate", "--config", write(parsed))
    assert (done.returncode, done.stderr) == (0, "")


def plant_values(config):
    config["issuer"]["token_ttl"] = "soon"
    config["tenants"]["lookup"]["url"] = "http://lookup.example.com/{client_id}"
    config["apis"][0]["routes"][0]["path"] = "/reports/without/variable"
    return ["issuer.token_ttl", "tenants.lookup.url", "apis[0].routes[0].path"]


def plant_unknown_missing_and_unreadable(config):
    config["listen"]["chek"] = "127.0.0.1:1"
    del config["issuer"]["audience"]
    config["tenants"]["lookup"]["auth"]["oauth2"]["client_secret_file"] = "secrets/nowhere"
    return ["listen.chek", "issuer.audience", "tenants.lookup.auth.oauth2.client_secret_file"]


def plant_types(config):
    config["listen"]["token"] = "localhost"
    config["apis"][0]["routes"][0]["methods"] = "GET"
    config["tenants"]["lookup"]["select"] = "$.tenants["
    return ["listen.token", "apis[0].routes[0].methods", "tenants.lookup.select"]


@pytest.mark.parametrize("plant", [plant_values, plant_unknown_missing_and_unreadable, plant_types])
def test_validate_names_all_three_mistakes_at_once(config, plant):
    parsed, write = config
    fields = plant(parsed)
    done = tenantgate("validate", "--config", write(parsed))
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    for field in fields:
        (line,) = [line for line in lines if line.startswith(f"{field}: ")]
        wrong, cure = line.removeprefix(f"{field}: ").split("; ", 1)
        assert wrong and cure


def test_validate_warns_and_fails_only_when_strict(config, tmp_path):
    parsed, write = config
    parsed["apis"][0]["shadow"] = True
    route = parsed["apis"][0]["routes"][0]
    route["methods"], route["scopes"] = ["GET", "GTE"], ["reports.red"]
    parsed["listen"]["admin"] = "0.0.0.0:9193"
    (tmp_path / "keys/old.pem").write_text("")
    file = write(parsed)
    done = tenantgate("validate", "--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    fields = [line.split(": ")[1] for line in warnings]
    assert sorted(fields) == [
        "apis[0].routes[0].methods[1]",
        "apis[0].routes[0].scopes[0]",
        "apis[0].shadow",
        "issuer.signing_keys",
        "listen.admin",
    ]
    for line in warnings:
        assert "; " in line and f"({file}:" in line
    assert tenantgate("validate", "--config", file, "--strict").returncode == 1
    parsed["issuer"]["token_ttl"] = "soon"
    done = tenantgate("validate", "--config", write(parsed))
    assert done.returncode == 1
    assert "warning: apis[0].shadow: " in done.stdout


def test_the_config_is_found_without_being_named(config, tmp_path):
    parsed, write = config
    file = write(parsed)
    argv = [bin_dir() / "tenantgate", "validate"]
    for folder, variables in [(tmp_path, {}), ("/", {"TENANTGATE_CONFIG": str(file)})]:
        done = subprocess.run(argv, cwd=folder, env=variables, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_explain_takes_a_token_from_standard_input(config):
    parsed, write = config
    arguments = ["--config", write(parsed), "--path", REPORT.format("T1"), "--token-file", "-"]
    done = tenantgate("explain", *arguments, stdin="no.token\n")
    assert done.returncode == 3
    assert "token_malformed" in done.stdout


def test_completions_and_man_pages(tmp_path):
    for shell in ["bash", "zsh", "fish"]:
        done = tenantgate("completions", shell)
        assert done.returncode == 0 and "validate" in done.stdout
    assert tenantgate("man", "--out", tmp_path / "man").returncode == 0
    assert ".TH" in (tmp_path / "man/tenantgate-validate.1").read_text()


def test_validate_reads_the_registry_too(config, tmp_path):
    parsed, write = config
    registry = tmp_path / "clients.yaml"
    registry.write_text(registry.read_text().replace("approved", "aproved"))
    done = tenantgate("validate", "--config", write(parsed))
    assert done.returncode == 1
    assert "clients[0].status" in done.stdout + done.stderr


def test_serve_refuses_a_broken_config_with_the_same_lines(config):
    parsed, write = config
    fields = plant_values(parsed)
    done = tenantgate("serve", "--config", write(parsed))
    assert done.returncode not in (0, 101)
    for field in fields:
        assert f"{field}: " in done.stderr


def test_a_missing_config_is_one_clear_line(tmp_path):
    done = tenantgate("serve", "--config", tmp_path / "nowhere.yaml")
    assert done.returncode not in (0, 101)
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere.yaml" in done.stderr


def test_generated_keys_are_private_files(config, tmp_path):
    files = [file for file in (tmp_path / "keys").rglob("*") if file.is_file()]
    files.append(tmp_path / "secrets/tenant-digest.key")
    assert len(files) >= 2
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_digest_key_is_64_hex_characters(config, tmp_path):
    key = (tmp_path / "secrets/tenant-digest.key").read_text().strip()
    assert len(key) == 64 and set(key) <= set("0123456789abcdef")


def test_keys_generate_adds_and_overwrites_nothing(tmp_path):
    keys = tmp_path / "keys"
    assert tenantgate("keys", "generate", "--dir", keys).returncode == 0
    before = {file: file.read_bytes() for file in keys.iterdir()}
    assert tenantgate("keys", "generate", "--dir", keys).returncode == 0
    after = {file: file.read_bytes() for file in keys.iterdir()}
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()


def test_keys_digest_does_not_overwrite(tmp_path):
    out = tmp_path / "digest.key"
    assert tenantgate("keys", "digest", "--out", out).returncode == 0
    before = out.read_text()
    assert tenantgate("keys", "digest", "--out", out).returncode != 0
    assert out.read_text() == before


def test_clients_add_shows_the_secret_once_and_stores_a_digest(tmp_path):
    file = tmp_path / "clients.yaml"
    done = tenantgate("clients", "add", "--file", file, "--id", "app", "--scope", "a", "--scope", "b", "--output", "json")
    shown = json.loads(done.stdout)
    assert set(shown) == {"client_id", "client_secret"}
    assert shown["client_secret"] not in file.read_text()
    (client,) = yaml.safe_load(file.read_text())["clients"]
    assert (client["id"], client["scopes"]) == ("app", ["a", "b"])
    assert client["credentials"][0]["digest"].startswith("sha256:")


def test_clients_add_refuses_a_second_client_of_the_same_id_and_bad_ids(tmp_path):
    file = tmp_path / "clients.yaml"
    assert tenantgate("clients", "add", "--file", file, "--id", "app").returncode == 0
    before = file.read_text()
    for client in ("app", "", "..", "a/b", "a b", "a" * 129):
        done = tenantgate("clients", "add", "--file", file, "--id", client)
        assert done.returncode not in (0, 101), client
    assert file.read_text() == before


def test_a_given_secret_is_stored_as_argon2id(tmp_path):
    file = tmp_path / "clients.yaml"
    arguments = ["clients", "add", "--file", file, "--id", "app", "--secret-stdin", "--output", "json"]
    secret = "a-secret-of-my-own-that-is-long-enough"
    done = tenantgate(*arguments, stdin=f"{secret}\n")
    assert done.returncode == 0, done.stderr
    (client,) = yaml.safe_load(file.read_text())["clients"]
    assert client["credentials"][0]["digest"].startswith("$argon2id$")


def test_explain(world):
    client = world.client("T1001")
    token = world.token(client)
    token_file = world.work / "token"
    token_file.write_text(token + "\n")

    def explain(*arguments):
        config = ["--config", world.work / "tenantgate.yaml", "--method", "GET"]
        return tenantgate("explain", *config, *arguments)

    allowed = explain("--path", REPORT.format("T1001"), "--token-file", token_file)
    denied = explain("--path", REPORT.format("T2002"), "--token", token)
    assert allowed.returncode == 0, allowed.stderr
    assert denied.returncode == 3, denied.stderr
    for done in (allowed, denied):
        assert not any(code in done.stdout + done.stderr for code in ("T1001", "T2002"))
        assert token.split(".")[2] not in done.stdout + done.stderr
    for arguments, told in [
        (["--path", "/" + REPORT.format("T1001").strip("/") + "s", "--token", token], "the nearest is "),
        (["--path", REPORT.format("T1001"), "--token", token], "expires "),
        (["--client", client.id + "x", "--tenant", "T1001"], f"did you mean `{client.id}`?"),
        (["--client", client.id, "--tenant", "T1001"], "usable 1, expired 0, revoked 0"),
    ]:
        assert told in explain(*arguments).stdout, arguments
    unclear = tenantgate("explain", "--config", "nowhere.yaml", "--method", "GET", "--path", "/", "--token", "x")
    assert unclear.returncode == 1


def test_references_and_back(world):
    config = ["--config", world.work / "tenantgate.yaml"]
    done = tenantgate("reference", *config, stdin="T1001\n\nT2002\n")
    assert done.returncode == 0, done.stderr
    references = {code: reference for reference, code in (line.split() for line in done.stdout.splitlines())}
    assert set(references) == {"T1001", "T2002"} and references["T1001"] != references["T2002"]
    # The one that everything else shows.
    explained = tenantgate("explain", *config, "--client", world.client("T1001").id, "--tenant", "T1001")
    assert f"{references['T1001']} is granted" in explained.stdout
    refused = tenantgate("reference", *config, stdin="T1001\na/secret\n")
    assert refused.returncode == 1 and "line 2" in refused.stderr and "secret" not in refused.stderr
