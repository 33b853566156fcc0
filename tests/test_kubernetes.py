"""The manifests are built, checked by the schemas of Kubernetes, and held to each other and to the code. No cluster is here."""

from __future__ import annotations

import copy
import math
import re

import kubernetes_validate
import pytest

from dinle import __version__
from dinle.cli import COMMANDS, build_parser
from dinle.measure.deployment import plan_capacity
from dinle.measure.deployment_config import PlanConfig
from dinle.measure.deployment_figures import read_figures
from dinle.measure.deployment_report import BLOCK, DOCUMENT, read_flags
from dinle.measure.queueing import compute_mean_wait_s
from dinle.serve import status
from dinle.serve.app import OPEN_PATHS, UPLOADS_PER_PLACE
from dinle.serve.metrics import Metrics
from dinle.serve.middleware import FORM_OVERHEAD_BYTES
from tests.manifests import (
    FOLDER,
    KNOWN_SETTINGS,
    OVERLAYS,
    RAY_FILES,
    ROOT,
    build,
    check_closed,
    find,
    find_container,
    find_pod,
    find_ray_pods,
    includes,
    read_overlay_settings,
    read_quantity,
    read_yaml,
    validate,
)

REPORTS = [ROOT / "artifacts" / name for name in ("service_report.json", "service_ctc_report.json")]
# The schemas are of Kubernetes' own kinds.
CUSTOM = {"PodMonitor"}

overlays = pytest.mark.parametrize("overlay", OVERLAYS)


@overlays
def test_every_object_fits_its_schema(overlay: str) -> None:
    checked = [document["kind"] for document in build(overlay) if document["kind"] not in CUSTOM]
    assert {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= set(checked)
    for document in build(overlay):
        if document["kind"] not in CUSTOM:
            validate(document)


def test_the_schemas_find_what_is_wrong() -> None:
    deployment = copy.deepcopy(find(OVERLAYS[0], "Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        validate(deployment)


@overlays
def test_everything_is_in_one_restricted_namespace_and_no_secret_is_here(overlay: str) -> None:
    namespace = find(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [document for document in build(overlay) if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in others} == {namespace["metadata"]["name"]}
    assert not [document for document in others if document["kind"] == "Secret"]


@overlays
def test_images_have_the_version_as_their_tag(overlay: str) -> None:
    containers = [find_container(overlay), *(one for pod in find_ray_pods() for one in pod["spec"]["containers"])]
    images = [container["image"] for container in containers]
    assert [image for image in images if not image.endswith(f":{__version__}")] == []
    for path in FOLDER.rglob("*.yaml"):
        assert ":latest" not in path.read_text(encoding="utf-8")


@overlays
def test_selectors_match_the_pods(overlay: str) -> None:
    deployment = find(overlay, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        find(overlay, "Service")["spec"]["selector"],
        find(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in find_pod(overlay)["topologySpreadConstraints"]),
        *(d["spec"]["selector"]["matchLabels"] for d in build(overlay) if d["kind"] == "PodMonitor"),
    ]
    assert all(includes(labels, selector) for selector in selectors)
    (ray_policy,) = [d for d in map(read_yaml, RAY_FILES) if d["kind"] == "NetworkPolicy"]
    ray_labels = [pod["metadata"]["labels"] for pod in find_ray_pods()]
    assert all(includes(labels, ray_policy["spec"]["podSelector"]["matchLabels"]) for labels in ray_labels)
    assert not any(includes(labels, selector) for labels in ray_labels for selector in selectors)


@overlays
def test_ports_are_the_one_that_the_command_listens_on(overlay: str) -> None:
    container = find_container(overlay)
    (port,) = container["ports"]
    (serve,) = [command for command in COMMANDS if command.name == container["command"][1]]
    given = build_parser(serve).parse_args(container["command"][1:])
    assert container["command"][0] == "dinle"
    assert (given.host, given.port) == ("0.0.0.0", port["containerPort"])  # noqa: S104 - a pod's own network
    (service_port,) = find(overlay, "Service")["spec"]["ports"]
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    monitors = [d["spec"]["podMetricsEndpoints"][0] for d in build(overlay) if d["kind"] == "PodMonitor"]
    named = [service_port["targetPort"], *(one["port"] for one in (*probes, *monitors))]
    assert set(named) == {port["name"]}


@overlays
def test_probes_ask_routes_that_need_no_key(overlay: str) -> None:
    container = find_container(overlay)
    routes = {getattr(route, "path", "") for route in status.router.routes}
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert set(paths.values()) <= routes & OPEN_PATHS
    for document in build(overlay):
        if document["kind"] == "PodMonitor":
            (endpoint,) = document["spec"]["podMetricsEndpoints"]
            assert endpoint["path"] in routes
            assert "authorization" in endpoint


@overlays
def test_settings_are_known_and_fit_the_pod(overlay: str) -> None:
    config_map = find(overlay, "ConfigMap")
    assert config_map["data"].keys() <= KNOWN_SETTINGS
    container = find_container(overlay)
    assert [source["configMapRef"]["name"] for source in container["envFrom"]] == [config_map["metadata"]["name"]]
    assert re.fullmatch(r"dinle-settings-\w{10}", config_map["metadata"]["name"])  # a change rolls the pods
    settings = read_overlay_settings(overlay)
    assert {"workers", "threads", "shutdown_s"} <= settings.model_fields_set
    assert settings.engine_workers * settings.engine_threads == read_quantity(container["resources"]["requests"]["cpu"])


@overlays
def test_resources_hold_what_was_measured(overlay: str) -> None:
    resources, settings = find_container(overlay)["resources"], read_overlay_settings(overlay)
    limits, requests = ({k: read_quantity(v) for k, v in resources[name].items()} for name in ("limits", "requests"))
    assert requests.keys() == limits.keys() == {"cpu", "memory", "ephemeral-storage"}
    assert all(requests[name] <= limits[name] for name in limits)
    peaks = [read_figures(path).memory_mb for path in REPORTS]
    assert limits["memory"] >= 1.5 * max(peak or math.inf for peak in peaks) * 1e6
    assert limits["memory"] <= PlanConfig().pod_memory_gb * 1e9
    (tmp,) = [volume for volume in find_pod(overlay)["volumes"] if "emptyDir" in volume]
    places = settings.engine_workers * settings.batch_size + settings.max_queue
    uploads = UPLOADS_PER_PLACE * places * (settings.max_bytes + FORM_OVERHEAD_BYTES)
    assert uploads <= read_quantity(tmp["emptyDir"]["sizeLimit"]) < limits["ephemeral-storage"]
    assert "medium" not in tmp["emptyDir"]  # on disk: memory is not counted for it


@overlays
def test_the_end_of_a_pod_is_long_enough(overlay: str) -> None:
    pod, settings = find_pod(overlay), read_overlay_settings(overlay)
    pause = find_container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + settings.shutdown_s + 5
    if overlay == "production":  # nothing that was accepted lasts longer
        assert settings.shutdown_s >= settings.deadline_s


@overlays
def test_pods_are_closed(overlay: str) -> None:
    pod, container = find_pod(overlay), find_container(overlay)
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == find(overlay, "ServiceAccount")["metadata"]["name"]
    check_closed(pod["securityContext"], container["securityContext"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]  # noqa: S108


@overlays
def test_the_policy_admits_the_service_and_lets_nothing_out(overlay: str) -> None:
    policy = find(overlay, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert not policy.get("egress")
    (rule,) = policy["ingress"]
    (port,) = rule["ports"]
    assert port == {"protocol": "TCP", "port": find(overlay, "Service")["spec"]["ports"][0]["targetPort"]}
    assert {"podSelector": {}} in rule["from"]
    namespaces = [one["namespaceSelector"]["matchLabels"] for one in rule["from"] if "namespaceSelector" in one]
    assert {"kubernetes.io/metadata.name": "monitoring"} in namespaces


@overlays
def test_a_pod_may_always_be_moved_and_never_all(overlay: str) -> None:
    least = find(overlay, "HorizontalPodAutoscaler")["spec"]["minReplicas"]
    allowed = find(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"]
    if isinstance(allowed, str):  # Kubernetes rounds up
        allowed = math.ceil(least * int(allowed.removesuffix("%")) / 100)
    assert 1 <= allowed < least
    assert find(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@overlays
def test_the_autoscaler_moves_the_deployment_within_the_plan(overlay: str) -> None:
    deployment, spec = find(overlay, "Deployment"), find(overlay, "HorizontalPodAutoscaler")["spec"]
    target = {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert spec["scaleTargetRef"] == target
    assert "replicas" not in deployment["spec"]
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
    workers = read_overlay_settings(overlay).engine_workers
    utilisations = []
    for metric in spec["metrics"]:
        if metric["type"] == "Resource":
            utilisations.append(metric["resource"]["target"]["averageUtilization"] / 100)
        elif metric["pods"]["metric"]["name"].startswith("dinle_running"):
            utilisations.append(read_quantity(metric["pods"]["target"]["averageValue"]) / workers)
    (utilisation,) = utilisations
    figures = read_figures(REPORTS[0])
    assert utilisation <= plan_capacity(figures, PlanConfig()).utilisation
    # The queue speaks up only where busy workers say too little: Little's law for those that wait at that utilisation.
    waiting = compute_mean_wait_s(workers, 1.0, utilisation) * utilisation * workers
    queues = [m["pods"] for m in spec["metrics"] if m["type"] == "Pods" and "queue" in m["pods"]["metric"]["name"]]
    assert all(read_quantity(queue["target"]["averageValue"]) > 2 * waiting for queue in queues)
    assert bool(queues) == (spec["metrics"][0]["type"] == "Pods")


def test_production_has_room_for_the_documents_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    block = next(BLOCK.finditer(DOCUMENT.read_text(encoding="utf-8")))
    config = read_flags(block["flags"])
    most = find("production", "HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    assert most >= max(plan_capacity(read_figures(path), config).live_pods for path in config.report)


def test_the_adapter_makes_the_autoscalers_metrics_from_exported_ones() -> None:
    rules = read_yaml(FOLDER / "prometheus-adapter" / "values.yaml")["rules"]["custom"]
    metrics = find("production", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert {rule["name"]["as"] for rule in rules} == {metric["pods"]["metric"]["name"] for metric in metrics}
    exported = {metric.name for metric in Metrics().registry.collect()}
    for rule in rules:
        series = rule["seriesQuery"].partition("{")[0]
        assert series in exported
        assert rule["name"]["as"] == f"{series}_1m"
        assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
        assert "<<.Series>>{<<.LabelMatchers>>}[1m]" in rule["metricsQuery"]
        assert "by (<<.GroupBy>>)" in rule["metricsQuery"]


def test_the_pod_monitor_has_fields_that_are_known() -> None:
    """The operator's own schemas are in no package of PyPI that the tests could take; docs/deployment.md says what was done."""
    monitor = find("production", "PodMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"].keys() == {"selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint.keys() == {"port", "path", "interval", "scrapeTimeout", "authorization"}
    interval, timeout = (int(endpoint[name].removesuffix("s")) for name in ("interval", "scrapeTimeout"))
    assert timeout < interval <= 60 / 4  # four samples at least in the adapter's minute


def test_production_reads_keys_from_one_secret_that_is_made_elsewhere() -> None:
    (volume,) = [one for one in find_pod("production")["volumes"] if "secret" in one]
    (mount,) = [one for one in find_container("production")["volumeMounts"] if one["name"] == volume["name"]]
    (item,) = volume["secret"]["items"]
    keys_file = find("production", "ConfigMap")["data"]["ASR_API_KEYS_FILE"]
    assert keys_file == f"{mount['mountPath']}/{item['path']}"
    (endpoint,) = find("production", "PodMonitor")["spec"]["podMetricsEndpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["name"] == volume["secret"]["secretName"]
    command = (FOLDER / "components" / "api-keys" / "kustomization.yaml").read_text(encoding="utf-8")
    assert f"secret generic {credentials['name']} --from-file={item['key']}=" in command
    assert f"--from-file={credentials['key']}=" in command
    assert "ASR_API_KEYS_FILE" not in find("small", "ConfigMap")["data"]
