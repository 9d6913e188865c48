"""Sentences of four kinds of writing with what people thought of them, fetched from the package index once."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

from tests.fetching import package

DOMAINS = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "editorials": "nytEditorialSnippets",
    "tweets": "tweets",
}
"""The file of each."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the mean of its ratings, from -4, extremely negative, to 4, extremely positive."""

    text: str
    rating: float


def rated(domain: str) -> list[Sentence]:
    """The sentences of a domain, each once, in the order of the file (vaderSentiment 0.5, MIT).

    10,600 of film reviews, 3,700 of reviews of products, 5,100 of a newspaper's editorials and 4,100 of tweets, each
    rated by twenty people at least (Hutto and Gilbert 2014, https://doi.org/10.1609/icwsm.v8i1.14550).

    Raises:
        FetchFailed: pip could not download them.
    """
    inside = package("vaderSentiment", "0.5", source=True) / "vaderSentiment-0.5" / "additional_resources"
    with tarfile.open(inside / "hutto_ICWSM_2014.tar.gz") as archive:
        [member] = [m for m in archive.getmembers() if m.name.endswith(f"/{DOMAINS[domain]}_GroundTruth.txt")]
        file = archive.extractfile(member)
        assert file is not None
        lines = file.read().decode("utf-8").splitlines()
    found: dict[str, Sentence] = {}
    for line in filter(None, lines):
        _, rating, text = line.split("\t")
        text = " ".join(text.split())
        found.setdefault(text.casefold(), Sentence(text, float(rating)))
    return list(found.values())
