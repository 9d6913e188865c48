"""What is shown: a run or a comparison as one page of charts and tables, and its charts as files."""

from __future__ import annotations

import logging
from pathlib import Path

from ftk.events import Events
from ftk.plugin.registry import one_line

# matplotlib warns of folders for its cache and of fonts, which is nobody's business at the end of a run.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def write_at_end(folder: Path, events: Events) -> None:
    """Write the page of a run that is complete; whatever cannot be drawn is a warning, for the run is paid for."""
    try:
        from ftk.pictures.page import write_page  # here: the chart library takes half a second to load

        write_page(folder)
    except Exception as error:
        events("warning", text=f"report.html was not written ({one_line(error)}); try again with: ftk report {folder}")
