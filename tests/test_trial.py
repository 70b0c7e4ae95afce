"""A server asked by hand: raw requests, times, waiting; and one that is started and closed."""

import time

import pytest
from serving import gpt, tokenizer

from llmkit.deploy import server, trial


@pytest.fixture(scope="module")
def running():
    with server.background(gpt(), tokenizer(), name="small") as running:
        yield running


def test_a_request_without_a_body_asks_and_one_with_a_body_sends(running):
    status, health = trial.send(running.url + "/health")
    assert (status, health["model"]) == (200, "small")
    body = {"prompt": "a", "max_tokens": 3, "seed": 1}
    status, answer = trial.send(running.url + "/v1/completions", body)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 3)
    assert trial.send(running.url + "/v1/completions", "prompt=a")[0] == 400
    assert trial.send(running.url + "/health", Host="evil.example")[0] == 403


@pytest.mark.parametrize("url", ["127.0.0.1:80/health", "https://127.0.0.1/", "http:///x"])
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match="url must be an address such as http"):
        trial.send(url)


def test_the_time_before_the_first_piece_counts():
    def stream():
        for piece in "ab":
            time.sleep(0.02)
            yield piece

    seconds, pieces = trial.arrivals(stream)
    assert pieces == ["a", "b"]
    assert 0.02 <= seconds[0] <= seconds[1] - 0.02
    assert trial.arrivals(list) == ([], [])


def test_waiting_ends_when_it_is_true_and_not_before():
    began = time.monotonic()
    trial.wait_until(lambda: time.monotonic() > began + 0.02)
    assert time.monotonic() >= began + 0.02
    with pytest.raises(TimeoutError, match=r"within 0\.01 seconds"):
        trial.wait_until(lambda: False, seconds=0.01)


def test_a_server_that_was_started_runs_until_it_is_closed():
    started = server.start(gpt(), tokenizer(), name="small")
    assert trial.send(started.url + "/health")[0] == 200
    started.close()
    started.close()  # does no harm
    with pytest.raises(OSError, match="refused"):
        trial.send(started.url + "/health")


def test_a_setting_that_is_wrong_leaves_nothing_behind():
    with pytest.raises(ValueError, match="queue must be at least 1"):
        server.start(gpt(), tokenizer(), queue=0)
