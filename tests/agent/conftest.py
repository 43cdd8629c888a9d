"""A control plane, a model, and an agent that the tests of a file share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import control_plane, host, tiny_model
from agent.control_plane import ControlPlane
from agent.host import Agent


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("models")
    tiny_model.write(folder / "tiny.gguf")
    return folder


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane.serving() as made:
        yield made


@pytest.fixture
def agent(plane: ControlPlane, models: Path, tmp_path: Path) -> Iterator[Agent]:
    with host.running(plane, tmp_path, models) as made:
        yield made
