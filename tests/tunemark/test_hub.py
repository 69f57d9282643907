"""The hub is asked only where it can be reached."""

import socket

import huggingface_hub.constants
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from tunemark.hub import find_hub_obstacle, hub_or_its_cache


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_answers_is_no_obstacle_and_one_that_is_not_there_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert find_hub_obstacle(f"http://127.0.0.1:{server.getsockname()[1]}") is None
    reason = find_hub_obstacle(f"http://127.0.0.1:{_free_port()}")
    assert reason is not None
    assert reason.startswith("127.0.0.1 cannot be reached: ")


def test_a_hub_that_cannot_be_reached_fails_at_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{_free_port()}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # The library alone would repeat the request five times, for 23 s.
    with pytest.raises(LocalEntryNotFoundError) as caught, hub_or_its_cache():
        huggingface_hub.hf_hub_download("some/where", "config.json", cache_dir=tmp_path)
    assert isinstance(caught.value.__cause__, OfflineModeIsEnabled)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_proxy_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert find_hub_obstacle(f"http://127.0.0.1:{_free_port()}") is None
