"""What the system tests share: one forge for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.forge import Forge


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Starts real ``ftk`` processes, each new, that do not wait for their imports."""
    made = Forge(tmp_path_factory.mktemp("forge"))
    yield made
    made.close()
