"""The Helm chart, rendered by Helm's own SDK without a cluster: what Kubernetes would take, what it refuses, that it
agrees with the base in deploy/kubernetes, and that tenantgate takes the config it writes."""

import copy
import os
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import helm_python as helm
import test_deploy as base
from conftest import bin_dir

REPO = Path(__file__).resolve().parents[2]
CHART = REPO / "deploy/chart/tenantgate"
VARIANTS = {file.name.removesuffix("-values.yaml"): yaml.safe_load(file.read_text()) or {}
            for file in sorted(CHART.glob("ci/*-values.yaml"))}
# Kinds that the Kubernetes schemas do not know.
CUSTOM = {"ServiceMonitor", "PodMonitor", "Certificate"}


def render(values):
    """Every document by kind and name."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name="tg", namespace="gates")
    docs = [doc for name, text in texts.items() if name.endswith(".yaml") for doc in yaml.safe_load_all(text) if doc]
    return {f"{doc['kind']}/{doc['metadata']['name']}": doc for doc in docs}


@pytest.fixture(scope="module")
def rendered():
    return {name: render(values) for name, values in VARIANTS.items()}


def pod_of(docs, shape="deployment"):
    if shape == "sidecar":
        patch = next(doc for name, doc in docs.items() if name.endswith("-sidecar"))
        return yaml.safe_load(patch["data"]["patch.yaml"])["spec"]["template"]["spec"]
    return next(doc for doc in docs.values() if doc["kind"] == "Deployment")["spec"]["template"]["spec"]


def containers(pod):
    return pod.get("containers", []) + pod.get("initContainers", [])


def shape(name):
    return VARIANTS[name].get("shape", "deployment")


def test_the_chart_is_sound():
    findings = helm.lint(CHART)
    bad = [message for message in findings.get("messages", []) if message.get("severity", 0) >= 3]
    assert not bad, bad


@pytest.mark.parametrize("version", base.VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_takes_every_document(rendered, variant, version):
    for doc in rendered[variant].values():
        if doc["kind"] not in CUSTOM:
            kubernetes_validate.validate(doc, version, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_is_locked_down(rendered, variant):
    docs = rendered[variant]
    pods = [pod_of(docs, shape(variant))]
    pods += [doc["spec"]["template"]["spec"] for doc in docs.values() if doc["kind"] == "Job"]
    pods += [doc["spec"] for doc in docs.values() if doc["kind"] == "Pod"]
    for pod in pods:
        for container in containers(pod):
            context = pod["securityContext"] | container["securityContext"]
            assert context["runAsNonRoot"] is True and context["runAsUser"] > 0 and context["runAsGroup"] > 0
            assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}
        assert pod.get("automountServiceAccountToken", False) is False


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_secret_is_in_the_release(rendered, variant):
    for name, doc in rendered[variant].items():
        assert doc["kind"] != "Secret", name
        assert not base.SECRET_SHAPES.search(doc.get("data", {}).get("tenantgate.yaml", "")), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_belongs_together_does(rendered, variant):
    """Mounts have volumes, services select the pods, ports exist."""
    docs = rendered[variant]
    pod = pod_of(docs, shape(variant))
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in containers(pod):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    ports = {port["name"] for container in containers(pod) for port in container["ports"]}
    deployments = [doc for doc in docs.values() if doc["kind"] == "Deployment"]
    for deployment in deployments:
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        selectors = [doc["spec"]["selector"] for doc in docs.values() if doc["kind"] == "Service"]
        selectors += [doc["spec"]["podSelector"]["matchLabels"] for doc in docs.values()
                      if doc["kind"] == "NetworkPolicy"]
        selectors += [doc["spec"]["selector"]["matchLabels"] for doc in docs.values()
                      if doc["kind"] in ("PodDisruptionBudget", "PodMonitor")]
        assert selectors and all(selector.items() <= labels.items() for selector in selectors)
        for service in (doc for doc in docs.values() if doc["kind"] == "Service"):
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for monitor in (doc for doc in docs.values() if doc["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [doc for doc in docs.values()
                    if doc["kind"] == "Service" and wanted <= doc["metadata"]["labels"].items()]
        assert [service["metadata"]["name"] for service in services] == [monitor["metadata"]["name"] + "-metrics"]
    for name in docs:
        assert len(name.split("/", 1)[1]) <= 63


def test_management_is_reached_by_the_portal_only(rendered):
    policy = rendered["fleet"]["NetworkPolicy/gate"]["spec"]
    (rule,) = [rule for rule in policy["ingress"] if 9194 in [port["port"] for port in rule["ports"]]]
    portal = VARIANTS["fleet"]["networkPolicy"]["portal"]
    assert rule == {"from": portal, "ports": [{"port": 9194, "protocol": "TCP"}]}
    closed = render({"listen": {"management": {"enabled": True, "tokenSecret": "m"}}})
    ingress = closed["NetworkPolicy/tg-tenantgate"]["spec"]["ingress"]
    ports = [port["port"] for rule in ingress for port in rule["ports"]]
    assert 9194 not in ports


def test_the_migration_runs_before_the_replicas_and_with_its_own_role(rendered):
    job = rendered["fleet"]["Job/gate-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    sources = job["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
    names = [source["secret"]["name"] for source in sources if "secret" in source]
    assert "tenantgate-state-owner" in names and "tenantgate-state" not in names
    config_map = next(source["configMap"]["name"] for source in sources if "configMap" in source)
    assert rendered["fleet"][f"ConfigMap/{config_map}"]["metadata"]["annotations"]["helm.sh/hook-weight"] == "-5"


REFUSED = {
    "an unknown key": {"replicas": 3},
    "an unknown key below": {"image": {"name": "x"}},
    "a secret's value": {"secrets": {"lookupClientValue": "hunter2"}},
    "a shape that is not one": {"shape": "daemonset"},
    "text for a number": {"replicaCount": "two"},
    "a port that is not one": {"listen": {"check": {"port": 70000}}},
    "a listen section in the config": {"config": {"listen": {"check": "0.0.0.0:1"}}},
    "a digest that is not one": {"image": {"digest": "latest"}},
    "less grace than the drain takes": {"terminationGracePeriodSeconds": 10},
    "a service type that is not one": {"service": {"type": "Internal"}},
    "a duration that is not one": {"metrics": {"podMonitor": {"interval": "often"}}},
    "a secret's name that is not one": {"secrets": {"clients": "Not A Name"}},
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED.keys())
def test_the_schema_refuses(values):
    with pytest.raises(helm.HelmError):
        render(values)


def test_a_database_without_its_url_is_refused():
    with pytest.raises(helm.HelmError, match="state.postgres.urlSecret"):
        render({"state": {"postgres": {"enabled": True}}})


def test_the_defaults_agree_with_the_base():
    """One container, one policy, one budget: they are the same in both."""
    pod = pod_of(render({"shape": "sidecar"}), "sidecar")
    (container,) = pod["initContainers"]
    # The chart says what Kubernetes would assume.
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    assert container == base.TENANTGATE
    assert pod["securityContext"] == base.POD["securityContext"]
    ours = {volume["name"]: volume for volume in pod["volumes"]}
    for name, volume in ours.items():
        theirs = copy.deepcopy(base.volume(name))
        if "projected" in volume:
            # Only the ConfigMap's name differs: it is the release's.
            assert [part["projected"]["sources"].pop(0).keys() for part in (volume, theirs)] == [{"configMap"}] * 2
        assert volume == theirs, name
    docs = render({})
    assert docs["Deployment/tg-tenantgate"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == \
        base.POD["terminationGracePeriodSeconds"]
    budget = docs["PodDisruptionBudget/tg-tenantgate"]["spec"]
    theirs = base.BY_NAME["PodDisruptionBudget/reports-api"]["spec"]
    assert {**budget, "selector": None} == {**theirs, "selector": None}
    egress = docs["NetworkPolicy/tg-tenantgate"]["spec"]["egress"]
    assert egress == base.BY_NAME["NetworkPolicy/reports-api"]["spec"]["egress"]
    config = yaml.safe_load(docs["ConfigMap/tg-tenantgate"]["data"]["tenantgate.yaml"])
    theirs = yaml.safe_load(base.TENANTGATE_YAML)
    assert {**config, "listen": None} == {**theirs, "listen": None}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl on this machine")
def test_kustomize_builds_the_base():
    result = subprocess.run(["kubectl", "kustomize", base.KUBERNETES], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    built = {base.named(doc) for doc in yaml.safe_load_all(result.stdout)}
    assert built == {base.named(doc) for doc in base.APPLIED}
    files = {file.name for file in base.KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(base.KUSTOMIZATION["resources"])


@pytest.mark.parametrize("variant", ["default", "sidecar", "fleet", "check-only"])
def test_tenantgate_takes_the_config_as_mounted(rendered, variant, tmp_path):
    docs = rendered[variant]
    pod = pod_of(docs, shape(variant))
    (container,) = [c for c in containers(pod) if c["name"] == "tenantgate"]
    config = next(doc["data"]["tenantgate.yaml"] for doc in docs.values() if "tenantgate.yaml" in doc.get("data", {}))
    result = base.validate_as_mounted(tmp_path, config, container, {v["name"]: v for v in pod["volumes"]})
    assert result.returncode == 0, result.stdout + result.stderr


def test_helm_test_mints_and_is_refused(world, rendered):
    """The script that `helm test` runs, against a running stack."""
    client = world.client("T1")
    pod = rendered["default"]["Pod/tg-tenantgate-test"]["spec"]
    script = pod["containers"][0]["args"][0]
    path = "/api/{}/"
    env = {"PATH": os.environ["PATH"], "TOKEN_URL": f"{world.url}/oauth2/token", "GATEWAY": world.url,
           "GRANTED": path.format("T1"), "FOREIGN": path.format("T2"), "client_id": client.id}

    def run(secret):
        return subprocess.run([*pod["containers"][0]["command"], script], capture_output=True, text=True, timeout=60,
                              env=env | {"client_secret": secret})

    good = run(client.secret)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.count("ok: ") == 5
    bad = run("not-the-secret")
    assert bad.returncode != 0 and "FAILED: a registered client gets a token" in bad.stdout
