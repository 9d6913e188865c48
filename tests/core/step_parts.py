"""Transforms for the tests of steps, some of them broken; ``CALLS`` tells which were applied."""

import json

from ftk import UserError
from ftk.parts import Tally, Transform

CALLS: list[str] = []


class Odd(Transform):
    """Drops rows of odd numbers."""

    def __init__(self, options):
        self._tally = Tally()

    def apply(self, dataset):
        CALLS.append("odd")
        self._tally = Tally()
        kept = []
        for index, row in enumerate(dataset):
            if index % 2:
                self._tally.dropped("of an odd number", next(iter(row.values())))
            else:
                kept.append(index)
        return dataset.select(kept)

    def effects(self):
        return self._tally.effects()


class Halves(Odd):
    """The first half, in training alone; tells nothing."""

    def training_only(self):
        return True

    def apply(self, dataset):
        return dataset.select(range(len(dataset) // 2))

    def effects(self):
        return ()


class Unseen(Odd):
    """Drops rows that stand in a test set."""

    def __init__(self, options):
        self._seen: dict[str, list[str]] = {}

    def see_tests(self, place, texts):
        self._seen[place] = list(texts)

    def apply(self, dataset):
        CALLS.append(f"unseen {json.dumps(self._seen)}")
        seen = {text for texts in self._seen.values() for text in texts}
        return dataset.select([n for n, text in enumerate(dataset["text"]) if text not in seen])

    def effects(self):
        return ()


class Other(Halves):
    def apply(self, dataset):
        return dataset.to_list()


class Void(Odd):
    def apply(self, dataset):
        super().apply(dataset)
        return dataset.select([])


class Picky(Halves):
    def apply(self, dataset):
        raise UserError("there is no column `body`", "name one that is there")
