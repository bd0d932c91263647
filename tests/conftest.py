"""What black-box tests share: one strict sink and one running gateway for the session, or fresh ones on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.gateway_under_test import Gateway
from tests.sink import Sink

_numbers = count(1)

# How long an example takes says more about who else uses the machine than about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def shared_sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture(scope="session")
def shared_gateway(shared_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the tests that need nothing special of it; two workers, as on a real machine."""
    running = Gateway(tmp_path_factory.mktemp("gateway") / "house", shared_sink.url, workers=2).prepare().start()
    yield running
    running.close()


@pytest.fixture
def gateway(shared_gateway: Gateway, sink: Sink) -> Gateway:
    return shared_gateway


@pytest.fixture
def sink(shared_sink: Sink) -> Iterator[Sink]:
    """The shared sink, with nothing recorded and nothing scripted; what a test did wrong on the wire fails it."""
    shared_sink.normal()
    shared_sink.release()
    shared_sink.clear()
    yield shared_sink
    shared_sink.normal()
    shared_sink.release()
    faults = list(shared_sink.faults)
    shared_sink.clear()
    assert not faults, faults


@pytest.fixture
def someone() -> Callable[[], str]:
    """Make addresses that no other test has used."""
    return lambda: f"reader{next(_numbers)}@example.org"


MakeGateway = Callable[..., Gateway]


@pytest.fixture
def make_gateway(tmp_path: Path, sink: Sink) -> Iterator[MakeGateway]:
    """Make gateways of a test's own, prepared and not started; `sections` replaces parts of the configuration."""
    made: list[Gateway] = []

    def make(sections: Mapping[str, str] | None = None, *, workers: int = 1, smarthost: str = "") -> Gateway:
        folder = tmp_path / f"house{len(made)}"
        made.append(Gateway(folder, smarthost or sink.url, sections=sections, workers=workers))
        return made[-1].prepare()

    yield make
    for one in made:
        one.close()
