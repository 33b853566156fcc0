"""The RayService is held to Kubernetes' schemas, to KubeRay's reference, to Ray Serve's own schema and to the code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from dinle.scale.environment import SERVE_ENVIRONMENT
from dinle.serve.settings import PREFIX, read_settings
from tests.manifests import (
    KNOWN_SETTINGS,
    RAY_FILES,
    ROOT,
    check_closed,
    find_ray_pods,
    read_quantity,
    read_ray,
    read_yaml,
    validate,
    yaml,
)

# What the RayService of KubeRay may hold (ray.io/v1): https://ray-project.github.io/kuberay/reference/api/
RAY_SPEC = {"serveConfigV2", "rayClusterConfig", "excludeHeadPodFromServeSvc", "serveService", "upgradeStrategy"}
RAY_CLUSTER = {
    "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs", "gcsFaultToleranceOptions",
}  # fmt: skip
RAY_AUTOSCALER = {
    "idleTimeoutSeconds",
    "resources",
    "securityContext",
    "env",
    "envFrom",
    "image",
    "upscalingMode",
    "version",
}
RAY_WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_the_ray_service_has_fields_that_are_known_and_pods_that_fit_the_schema() -> None:
    service = read_ray()
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    assert service["spec"].keys() <= RAY_SPEC
    assert cluster.keys() <= RAY_CLUSTER
    assert cluster["autoscalerOptions"].keys() <= RAY_AUTOSCALER
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert all(group.keys() == RAY_WORKERS for group in cluster["workerGroupSpecs"])
    for pod in find_ray_pods():
        validate({"apiVersion": "v1", "kind": "Pod", **pod})
        (container,) = pod["spec"]["containers"]
        check_closed(pod["spec"]["securityContext"], container["securityContext"])
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        assert given.items() >= SERVE_ENVIRONMENT.items()
        assert {name for name in given if name.startswith(PREFIX)} <= KNOWN_SETTINGS
    for path in RAY_FILES:
        if path.stem != "rayservice":
            validate(read_yaml(path))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'dinle[ray]'")
def test_ray_serve_understands_the_config() -> None:
    """In a process of its own: importing Ray warns, and changes the process."""
    code = (
        "import sys, yaml; from ray.serve.schema import ServeDeploySchema; "
        "print(ServeDeploySchema(**yaml.safe_load(sys.stdin)).applications[0].deployments[0].name)"
    )
    config = read_ray()["spec"]["serveConfigV2"]
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, input=config, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "DinleService\n"), done.stderr


def test_the_ray_service_runs_the_application_with_room_for_every_replica() -> None:
    service = read_ray()
    cluster, config = service["spec"]["rayClusterConfig"], yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    assert (application["name"], application["import_path"]) == ("dinle", "dinle.scale.app:app")
    arguments = dict(application["args"])
    least, most = arguments.pop("min_replicas"), arguments.pop("max_replicas")
    settings = read_settings(**arguments)
    (workers,) = cluster["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    cores = settings.engine_workers * settings.engine_threads
    assert (
        float(workers["rayStartParams"]["num-cpus"]) == read_quantity(container["resources"]["limits"]["cpu"]) == cores
    )
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no replica there
    assert (workers["minReplicas"], workers["maxReplicas"]) == (least, most)
    assert least <= workers["replicas"] <= most
    assert config["http_options"]["port"] == container["ports"][0]["containerPort"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] >= pause + settings.shutdown_s + 5
    committed = read_yaml(ROOT / "configs" / "ray-serve.yaml")
    (theirs,) = committed["applications"]
    ours = {**application, "args": None}
    assert ours == {**theirs, "args": None}
    assert {**config, "applications": None, "http_options": {**config["http_options"], "host": "127.0.0.1"}} == {
        **committed, "applications": None
    }  # fmt: skip
    version = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is None or cluster["rayVersion"] == version[1]
