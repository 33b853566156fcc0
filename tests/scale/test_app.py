"""What Ray Serve is told about the service; no cluster."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own
    pytest.importorskip("ray.serve", reason="the extra ray is not installed")
    from ray import cloudpickle

    from dinle.scale import app as module

import yaml  # type: ignore[import-untyped]
from pydantic import SecretStr

from dinle.errors import BundleNotFoundError, UsageError
from dinle.scale.environment import PROXY_CALLBACK, PROXY_VARIABLE
from dinle.serve.settings import Settings
from tests.graphs import write_level_bundle

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning")


def options(**given: Any) -> dict[str, Any]:
    scaling = {name: given.pop(name) for name in module.SCALING if name in given}
    return module.list_options(Settings(**given), scaling)


def test_a_replica_takes_what_its_workers_queue_and_streams_hold() -> None:
    made = options(workers=3, threads=2, max_queue=5, max_streams=4)
    assert made["max_ongoing_requests"] == 3 + 5 + 4 + module.LIGHT_REQUESTS
    assert made["ray_actor_options"] == {"num_cpus": 6}
    assert made["autoscaling_config"].target_ongoing_requests == 6


def test_replicas_are_counted_as_they_are_asked_for() -> None:
    made = options(min_replicas="2", max_replicas=5)["autoscaling_config"]
    assert (made.min_replicas, made.max_replicas) == (2, 5)
    for wrong in ({"min_replicas": 0}, {"max_replicas": "viele"}, {"min_replicas": 3, "max_replicas": 2}):
        with pytest.raises(UsageError):
            options(**wrong)


def test_replicas_elsewhere_get_the_settings_but_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_level_bundle(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    frozen = module.freeze_settings(Settings(api_keys=SecretStr("secret"), model_dir="model", max_queue=3))
    assert frozen["model_dir"] == str(tmp_path / "model")
    assert frozen["max_queue"] == 3
    assert frozen["workers"] >= 1
    assert "secret" not in str(frozen)
    assert "max_bytes" not in frozen  # what nobody set may be set where the replica runs


def test_a_service_with_keys_does_not_run_without(tmp_path: Path) -> None:
    write_level_bundle(tmp_path / "model")
    with pytest.raises(UsageError, match="ASR_API_KEYS is not set here"):
        module.build_replica({"model_dir": str(tmp_path / "model")}, needs_keys=True)


def test_arguments_are_checked_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="unknown arguments wokers; known are min_replicas"):
        module.app({"wokers": 2})
    with pytest.raises(UsageError, match="set ASR_API_KEYS on every node"):
        module.app({"api_keys": "secret"})
    with pytest.raises(UsageError, match="ASR_WORKERS"):
        module.app({"workers": "many"})


def test_a_builder_crosses_processes_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is small; the model is looked for where the application is made."""
    monkeypatch.setattr(module, "set_up_logging", lambda _: None)
    build = module.make_builder({"model_dir": str(tmp_path / "elsewhere")}, needs_keys=False)
    sent: bytes = cloudpickle.dumps(build)  # type: ignore[no-untyped-call]
    assert len(sent) < 5000
    with pytest.raises(BundleNotFoundError):
        cloudpickle.loads(sent)()


def test_the_committed_config_names_what_there_is() -> None:
    from ray.serve.schema import ServeDeploySchema

    text = (ROOT / "configs" / "ray-serve.yaml").read_text(encoding="utf-8")
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    assert application.import_path == f"{module.__name__}:{module.app.__name__}"
    module.check_arguments(application.args)
    built = module.app(application.args)
    assert [deployment.name for deployment in application.deployments] == [built._bound_deployment.name]


def test_ray_reports_to_nobody() -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


def test_it_is_told_where_lost_requests_would_not_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PROXY_VARIABLE, PROXY_CALLBACK)
    module.app({})
    assert caplog.text == ""
    monkeypatch.delenv(PROXY_VARIABLE)
    module.app({})
    assert "is answered 500 and not tried again" in caplog.text
