"""The options of the data set `files`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ftk_plugins.datasets.row_options import RowOptions

Format = Literal["jsonl", "json", "csv", "parquet", "txt"]


class FilesOptions(RowOptions):
    """What a recipe may say about `files`."""

    path: str | list[str] = Field(
        min_length=1,
        description="A file, a pattern such as `data/*.jsonl`, or a list of these; `~` is your home.",
    )
    format: Literal["auto"] | Format = Field(
        default="auto", description="The files' format; auto: by each file's suffix, `.gz` behind it or not."
    )
    encoding: str = Field(default="utf-8", description="The files' text encoding, such as `gb18030` or `latin-1`.")
    text_rows: Literal["line", "paragraph", "file"] = Field(
        default="line", description="What a row of a text file is; paragraphs are parted by blank lines."
    )
    delimiter: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="What parts the cells of a CSV file; unset: a tab in `.tsv` files, a comma in others.",
    )
    field: str | None = Field(
        default=None,
        description="The key that holds the rows of a JSON file that is one object; unset: it is a list.",
    )

    @field_validator("path")
    @classmethod
    def _no_empty_path(cls, path: str | list[str]) -> str | list[str]:
        if not all([path] if isinstance(path, str) else path):
            raise ValueError("a path is empty")
        return path

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(f"no encoding is called {encoding!r}; the usual one is utf-8") from None
        return encoding
