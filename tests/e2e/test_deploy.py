"""The Kubernetes manifests, checked without a cluster: schema, security settings, and the configs they embed."""

import copy
import datetime
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from conftest import bin_dir

REPO = Path(__file__).resolve().parents[2]
KUBERNETES = REPO / "deploy" / "kubernetes"
# The oldest version the manifests claim to work with, and the newest the validator knows.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
DRAIN_BOUND_S = 25
SECRET_SHAPES = re.compile(
    r"PRIVATE KEY|sha256:|\$argon2|\b[0-9a-fA-F]{64}\b|(secret|password):|\bclients:\s*\["
)


def load(path):
    return [doc for doc in yaml.safe_load_all(path.read_text()) if doc]


KUSTOMIZATION = load(KUBERNETES / "kustomization.yaml")[0]
APPLIED = [doc for name in sorted(KUSTOMIZATION["resources"]) for doc in load(KUBERNETES / name)]
PLACEHOLDERS = load(KUBERNETES / "secrets" / "secrets.yaml")


def named(doc):
    return f"{doc['kind']}/{doc['metadata']['name']}"


BY_NAME = {named(doc): doc for doc in APPLIED + PLACEHOLDERS}
POD = BY_NAME["Deployment/reports-api"]["spec"]["template"]["spec"]
CONTAINERS = {c["name"]: c for c in POD["initContainers"] + POD["containers"]}
TENANTGATE, ENVOY = CONTAINERS["tenantgate"], CONTAINERS["envoy"]
TENANTGATE_YAML = BY_NAME["ConfigMap/tenantgate-config"]["data"]["tenantgate.yaml"]
ENVOY_YAML = BY_NAME["ConfigMap/envoy-config"]["data"]["envoy.yaml"]


def volume(name):
    return next(v for v in POD["volumes"] if v["name"] == name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("doc", APPLIED + PLACEHOLDERS, ids=named)
def test_manifest_is_valid(doc, version):
    kubernetes_validate.validate(doc, version, strict=True)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_container_is_locked_down(container):
    context = POD["securityContext"] | container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0 and context["runAsGroup"] > 0
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert ":" in container["image"] and not container["image"].endswith(":latest")


def test_pod_has_no_way_to_the_cluster():
    assert POD["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & POD.keys()


def test_secrets_are_in_secrets_only():
    for doc in APPLIED:
        assert doc["kind"] != "Secret", f"{named(doc)} would be overwritten by `kubectl apply -f deploy/kubernetes/`"
        for key, text in doc.get("data", {}).items():
            assert not SECRET_SHAPES.search(text), f"{named(doc)} {key}"
    for doc in PLACEHOLDERS:
        for key, text in doc["stringData"].items():
            assert text.startswith("REPLACE") or yaml.safe_load(text) == {"clients": []}, f"{named(doc)} {key}"


def test_every_secret_and_config_map_named_exists_and_only_tenantgate_mounts_secrets():
    secrets, config_maps, secret_volumes = set(), set(), set()
    for vol in POD["volumes"]:
        sources = vol.get("projected", {}).get("sources", []) + [vol]
        found = {s["secret"].get("name") or s["secret"].get("secretName") for s in sources if "secret" in s}
        config_maps |= {s["configMap"]["name"] for s in sources if "configMap" in s}
        secrets |= found
        if found:
            secret_volumes.add(vol["name"])
            mode = (vol.get("projected") or vol.get("secret"))["defaultMode"]
            assert mode == 0o400, f"{vol['name']}: others must not read it, fsGroup adds the group"
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsGroup"]
    assert secrets == {doc["metadata"]["name"] for doc in PLACEHOLDERS}
    assert config_maps == {doc["metadata"]["name"] for doc in APPLIED if doc["kind"] == "ConfigMap"}
    for name, container in CONTAINERS.items():
        mounts = {m["name"] for m in container.get("volumeMounts", [])}
        assert (mounts & secret_volumes) == (secret_volumes if name == "tenantgate" else set())
        assert not [m for m in container.get("volumeMounts", []) if "subPath" in m], "subPath never sees an update"


def test_shutdown_fits_the_grace_period_and_its_order():
    assert TENANTGATE in POD["initContainers"] and TENANTGATE["restartPolicy"] == "Always"
    envoy_sleep = int(re.search(r"^sleep (\d+)$", ENVOY["lifecycle"]["preStop"]["exec"]["command"][-1], re.M)[1])
    assert POD["terminationGracePeriodSeconds"] > envoy_sleep + DRAIN_BOUND_S
    assert CONTAINERS["api"]["lifecycle"]["preStop"]["sleep"]["seconds"] > envoy_sleep


def test_selectors_ports_and_addresses_agree():
    config, envoy = yaml.safe_load(TENANTGATE_YAML), yaml.safe_load(ENVOY_YAML)
    labels = BY_NAME["Deployment/reports-api"]["spec"]["template"]["metadata"]["labels"]
    assert BY_NAME["Service/reports-api"]["spec"]["selector"].items() <= labels.items()
    for name in ["PodDisruptionBudget/reports-api", "NetworkPolicy/reports-api"]:
        spec = BY_NAME[name]["spec"]
        assert (spec.get("selector") or spec["podSelector"])["matchLabels"].items() <= labels.items()

    ports = {p["name"]: p["containerPort"] for c in CONTAINERS.values() for p in c.get("ports", [])}
    listeners = {x["name"]: x["address"]["socket_address"] for x in envoy["static_resources"]["listeners"]}
    assert listeners["public"] == {"address": "0.0.0.0", "port_value": ports["http"]}
    assert listeners["probes"] == {"address": "0.0.0.0", "port_value": ports["envoy-probes"]}
    assert config["listen"]["admin"] == f"0.0.0.0:{ports['admin']}"
    assert BY_NAME["Service/reports-api"]["spec"]["ports"][0]["targetPort"] == "http"

    upstream = {c["name"]: endpoint(c) for c in envoy["static_resources"]["clusters"]}
    socket = upstream["tenantgate-check"]["pipe"]["path"]
    assert config["listen"]["check"] == f"unix:{socket}"
    token = upstream["tenantgate-token"]["socket_address"]
    assert config["listen"]["token"] == f"{token['address']}:{token['port_value']}" == "127.0.0.1:9192"
    for container in (TENANTGATE, ENVOY):
        assert {"name": "check-socket", "mountPath": str(Path(socket).parent)} in container["volumeMounts"]
    assert "emptyDir" in volume("check-socket")


def test_network_policy_opens_two_ports_and_metrics_only_to_monitoring():
    spec = BY_NAME["NetworkPolicy/reports-api"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    rules = {tuple(p["port"] for p in rule["ports"]): rule.get("from") for rule in spec["ingress"]}
    assert rules.keys() == {(10000,), (9193,)}
    assert rules[(9193,)] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert all(rule.get("to") for rule in spec["egress"]), "an egress rule without `to` opens everything"


def endpoint(cluster):
    (locality,) = cluster["load_assignment"]["endpoints"]
    (only,) = locality["lb_endpoints"]
    return only["endpoint"]["address"]


def test_envoy_config_is_the_tested_one_but_for_its_addresses():
    tested = yaml.safe_load((REPO / "envoy" / "envoy.yaml").read_text())
    deployed = copy.deepcopy(yaml.safe_load(ENVOY_YAML))
    paths = deployed["admin"].pop("allow_paths")
    assert not [p for p in paths if "/quitquitquit".startswith(p.get("prefix") or p["exact"])]
    listeners = deployed["static_resources"]["listeners"]
    listeners[:] = [x for x in listeners if x["name"] != "probes"]
    for part in (tested, deployed):
        for listener in part["static_resources"]["listeners"]:
            del listener["address"]
        for cluster in part["static_resources"]["clusters"]:
            endpoint(cluster).clear()
    assert deployed == tested, "make the same change in envoy/envoy.yaml and deploy/kubernetes/configmap-envoy.yaml"


def test_envoy_accepts_its_config_with_the_arguments_of_the_container(tmp_path):
    envoy = Path(sys.executable).with_name("envoy")
    assert envoy.exists(), f"no Envoy at {envoy}; install tests/requirements.txt into this Python's environment"
    config = tmp_path / "envoy.yaml"
    config.write_text(ENVOY_YAML)
    mounts = {m["name"]: m["mountPath"] for m in ENVOY["volumeMounts"]}
    args = [str(config) if a == mounts["envoy-config"] + "/envoy.yaml" else a for a in ENVOY["args"]]
    assert str(config) in args
    result = subprocess.run([envoy, *args, "--mode", "validate"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def mount(root, mount_path, files):
    """Lays `files` out as the kubelet does: symlinks through `..data`, mode 0400 plus what fsGroup adds."""
    base = root / mount_path.lstrip("/")
    data = base / "..2026_01_01_00_00_00.1"
    for name, content in files.items():
        file = data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o440)
        link = base / Path(name).parts[0]
        if not link.is_symlink():
            link.symlink_to(Path("..data") / link.name)
    (base / "..data").symlink_to(data.name)


def test_tenantgate_accepts_its_config_as_mounted(tmp_path):
    result = validate_as_mounted(tmp_path, TENANTGATE_YAML, TENANTGATE, {vol["name"]: vol for vol in POD["volumes"]})
    assert result.returncode == 0, result.stdout + result.stderr


def validate_as_mounted(tmp_path, config, container, volumes):
    """`tenantgate validate` over what the kubelet would mount, with Secrets made as deploy/README.md says."""
    binary = REPO / os.environ.get("TENANTGATE_BIN", bin_dir() / "tenantgate")
    assert binary.exists(), f"no {binary}; build it, or name it in TENANTGATE_BIN"

    def tenantgate(*args):
        return subprocess.run([binary, *args], capture_output=True, text=True, timeout=60)

    made = tmp_path / "made"
    made.mkdir()
    for args in (["keys", "generate", "--dir", made / "keys"],
                 ["keys", "digest", "--out", made / "tenant-digest.key"],
                 ["keys", "digest", "--out", made / "state.key"],
                 ["clients", "add", "--file", made / "clients.yaml", "--id", "acme-analytics",
                  "--scope", "reports.read"]):
        result = tenantgate(*args)
        assert result.returncode == 0, result.stderr
    (made / "lookup-client").write_text("a client secret\n")
    (made / "management-token").write_text("a-token-of-the-portal-that-is-long-enough\n")
    (made / "state-url").write_text("postgres://tenantgate:word@db.example.com/tenantgate\n")
    keys = {f.name: f.read_bytes() for f in (made / "keys").iterdir()}
    assert keys and all(re.fullmatch(r"[-._a-zA-Z0-9]+", name) for name in keys), "not possible as keys of a Secret"

    # The pod's file system under `root`, and a config that looks for it there.
    root = tmp_path / "root"
    for m in sorted(container["volumeMounts"], key=lambda m: len(m["mountPath"]), reverse=True):
        config = re.sub(rf"{re.escape(m['mountPath'])}(?![-\w])", str(root) + m["mountPath"], config)
    for m in container["volumeMounts"]:
        vol = volumes[m["name"]]
        if "projected" in vol:
            items = [i for s in vol["projected"]["sources"] for i in s.get("secret", {}).get("items", [])]
            files = {i["path"]: (made / i["key"]).read_bytes() for i in items}
            mount(root, m["mountPath"], files | {"tenantgate.yaml": config.encode()})
        elif m["name"].endswith("-tls"):
            mount(root, m["mountPath"], certificate())
        elif "secret" in vol:
            mount(root, m["mountPath"], keys)
        else:
            (root / m["mountPath"].lstrip("/")).mkdir(parents=True)
    shutil.rmtree(made)

    serve = container["args"]
    return tenantgate("validate", "--config", str(root) + serve[serve.index("--config") + 1])


def certificate():
    """A self-signed one, as a Secret of the type kubernetes.io/tls holds it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gate.gates.svc")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
              .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=90))
              .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
              .sign(key, hashes.SHA256())).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return {"tls.crt": signed, "tls.key": private, "ca.crt": signed}
