"""What the options before the verb say to every verb."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """The options before the verb; ``click``'s context carries them as its object."""

    third_party: bool = True
    traceback: bool = False
