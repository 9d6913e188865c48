"""A model in `eval` mode for a while, and as it was afterwards."""

from __future__ import annotations

import pytest
from torch import nn

from ftk.parts import evaluated


def broken(model: nn.Module) -> None:
    with evaluated(model):
        assert not any(module.training for module in model.modules())
        raise KeyError


def test_each_module_is_afterwards_in_the_mode_that_it_was_in() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout())).train()
    model[1].eval()
    with pytest.raises(KeyError):
        broken(model)
    assert [module.training for module in model.modules()] == [True, True, False, False]
