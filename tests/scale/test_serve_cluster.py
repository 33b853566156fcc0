"""The service on a Ray cluster of two nodes: the same texts, a replica lost under load, a model rolled under load."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from dinle.scale.environment import SERVE_ENVIRONMENT
from dinle.serve.process import find_free_port
from tests.graphs import spell_levels, write_level_bundle
from tests.serve.servers import wait_for
from tests.serve.test_hot_swap import shift_text, write_shifted_bundle
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
    # Ray's own, and sockets and processes that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore"),
]

TEXTS = ["bir iki üç", "dört beş altı yedi", "sekiz dokuz on", "ışık ığdır şöyle böyle"]
SOUNDS = {text: encode_wav(spell_levels(" ".join([text] * 5))) for text in TEXTS}
ANSWERS = {text: " ".join([text] * 5) for text in TEXTS}
USERS = 6
REPLICA = "SERVE_REPLICA::"
SMALL: dict[str, Any] = {"replicas": 1, "max_queue": 0, "max_streams": 0}


@dataclass(frozen=True)
class Service:
    """The service on a cluster: where it listens, and how it is deployed."""

    url: str
    folder: Path
    deployed: dict[str, Any]
    lose_node: Callable[[], None]

    def deploy(self, model: str = "old", *, replicas: int = 2, **args: Any) -> None:
        """Deploy a model with one worker a replica, unless it is what runs, and return when all replicas answer."""
        from ray import serve

        from dinle.scale.app import app

        args |= {"model_dir": str(self.folder / model), "workers": 1, "threads": 1}
        args |= {"min_replicas": replicas, "max_replicas": replicas}
        if args != self.deployed:
            serve.run(app(args), name="dinle", route_prefix="/")
            self.deployed.clear()
            self.deployed.update(args)

        def is_up() -> bool:
            states = serve.status().applications["dinle"].deployments["DinleService"].replica_states
            return states == {"RUNNING": replicas} and len(self.replicas) == replicas  # a loss is noticed later there

        wait_for(is_up)

    @property
    def replicas(self) -> list[str]:
        """Names of the replicas' actors that live."""
        import ray

        return [each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if REPLICA in each["name"]]

    def kill(self, name: str) -> None:
        """End a replica as a crash would."""
        import ray

        ray.kill(ray.get_actor(name, namespace="serve"))


@dataclass(frozen=True)
class Call:
    asked: str
    ended_at: float
    seconds: float
    status: int
    text: str | None


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("models")
    write_level_bundle(folder / "old", "levels")
    write_shifted_bundle(folder / "new", "levels", 3)
    port = find_free_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SERVE_ENVIRONMENT.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            node = cluster.add_node(num_cpus=1)
            ray.init(cluster.address, namespace="serve", log_to_driver=False, logging_level=logging.ERROR)
            serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})

            yield Service(
                f"http://127.0.0.1:{port}", folder, {}, lambda: cluster.remove_node(node, allow_graceful=False)
            )
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]


def post(client: httpx2.Client, service: Service, text: str) -> Call:
    began = time.perf_counter()
    answer = client.post(f"{service.url}/transcribe", files={"file": SOUNDS[text]}, timeout=60)
    ended = time.perf_counter()
    return Call(text, ended, ended - began, answer.status_code, answer.json().get("text"))


def ask_while(service: Service, act: Callable[[], object]) -> list[Call]:
    """What users get who ask on and on while something is done."""
    stop = threading.Event()

    def ask_on(number: int) -> list[Call]:
        calls: list[Call] = []
        with httpx2.Client() as client:
            while not stop.is_set():
                calls.append(post(client, service, TEXTS[(number + len(calls)) % len(TEXTS)]))
        return calls

    with ThreadPoolExecutor(USERS) as pool:
        users = [pool.submit(ask_on, number) for number in range(USERS)]
        try:
            act()
        finally:
            stop.set()
        return [call for user in users for call in user.result()]


def check_answers(calls: list[Call], lost_at: float, shift: int = 0) -> None:
    """Everybody has an answer in good time: the right text or a refusal; and texts come on after the loss."""
    assert {call.status for call in calls} <= {200, 429, 503}
    right = {text: shift_text(answer, shift) for text, answer in ANSWERS.items()}
    assert [call for call in calls if call.status == 200 and call.text != right[call.asked]] == []
    assert max(call.seconds for call in calls) < 30
    assert len([call for call in calls if call.status == 200]) > len(calls) / 2
    assert [call for call in calls if call.status == 200 and call.ended_at > lost_at]


def test_what_has_no_place_is_refused_in_the_services_form(service: Service) -> None:
    """More than the replicas and the proxy hold: every answer is the right text, or 503 with a time to wait."""

    def ask(number: int) -> tuple[int, Any, str | None]:
        answer = httpx2.post(f"{service.url}/transcribe", files={"file": SOUNDS[TEXTS[number % 4]]}, timeout=60)
        return answer.status_code, answer.json(), answer.headers.get("retry-after")

    service.deploy(**SMALL)
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(ask, range(120)))
    for number, (status, body, retry) in enumerate(answers):
        assert (status == 200 and body["text"] == ANSWERS[TEXTS[number % 4]]) or (
            status == 503 and body["code"] == "service_busy" and retry is not None
        )
    assert {status for status, _, _ in answers} == {200, 503}


def test_one_replica_and_two_write_the_same(service: Service) -> None:
    found = []
    for given in (SMALL, {}):
        service.deploy(**given)
        with httpx2.Client() as client:
            found.append([post(client, service, text).text for text in TEXTS * 3])
    assert len(service.replicas) == 2
    assert found[0] == found[1] == [ANSWERS[text] for text in TEXTS * 3]


def test_what_the_application_does_is_done_behind_the_proxy(service: Service) -> None:
    service.deploy()
    with httpx2.Client(base_url=service.url) as client:
        assert client.get("/healthz").json()["model"] == "levels"
        assert "dinle" in client.get("/").text
        answer = client.post("/transcribe", files={"file": b"x"}, headers={"X-Request-ID": "mine"})
        assert (answer.status_code, answer.json()["code"]) == (415, "audio_decode")
        assert answer.headers.get_list("x-request-id") == ["mine"]
        streamed = client.post("/transcribe?stream=true", files={"file": SOUNDS[TEXTS[0]]}).text
        assert json.loads(streamed.strip().rpartition("data: ")[2])["text"] == ANSWERS[TEXTS[0]]


def test_a_live_stream_ends_with_a_reason_when_its_replica_is_lost(service: Service) -> None:
    from websockets.exceptions import ConnectionClosedError
    from websockets.sync.client import connect

    service.deploy()
    with connect(service.url.replace("http", "ws") + "/stream") as stream:
        stream.send(json.dumps({"type": "config"}))
        assert json.loads(stream.recv(timeout=30))["type"] == "ready"
        for name in service.replicas:
            service.kill(name)
        with pytest.raises(ConnectionClosedError) as closed:
            stream.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_a_replica_lost_under_load_loses_no_request(service: Service) -> None:
    service.deploy()
    killed_at = []

    def kill_twice() -> None:
        for _ in range(2):
            time.sleep(1.5)
            service.kill(service.replicas[0])
            killed_at.append(time.perf_counter())
        time.sleep(1.5)

    calls = ask_while(service, kill_twice)
    check_answers(calls, killed_at[-1])


def test_a_model_is_rolled_under_load(service: Service) -> None:
    """Every answer is right, of the old model or of the new one, and in the end of the new one."""
    service.deploy()

    def roll() -> None:
        time.sleep(0.5)
        service.deploy("new")
        time.sleep(1)

    calls = ask_while(service, roll)
    assert {call.status for call in calls} == {200}
    wanted = {text: {ANSWERS[text], shift_text(ANSWERS[text], 3)} for text in TEXTS}
    assert [call for call in calls if call.text not in wanted[call.asked]] == []
    last = [call.text == shift_text(ANSWERS[call.asked], 3) for call in sorted(calls, key=lambda call: call.ended_at)]
    assert not last[0]
    assert all(last[-USERS:])


def test_a_machine_lost_under_load_loses_no_request(service: Service) -> None:
    """The last one: what is left has room for one replica only."""
    service.deploy("new")
    lost_at = []

    def lose() -> None:
        time.sleep(1)
        lost_at.append(time.perf_counter())
        service.lose_node()
        time.sleep(3)

    check_answers(ask_while(service, lose), lost_at[0], shift=3)
