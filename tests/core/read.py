"""Reads recipes from text, as tests write them."""

from __future__ import annotations

from pathlib import Path

from ftk.plugin.registry import Registry
from ftk.recipe.reading import Recipe, load_recipe


class Read:
    """Reads recipes from text."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        self.registry = registry

    def __call__(self, text: str, *settings: str, without: tuple[str, ...] = (), file: str = "recipe") -> Recipe:
        path = self.folder / f"{file}.toml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, overrides=settings, without=without, registry=self.registry)
