"""The data set `drawn_shapes`: each scene drawn once, with its caption."""

from __future__ import annotations

from datasets import Dataset, Features, Image, Value

from ftk_plugins.datasets.drawn_shapes.drawing import drawn
from ftk_plugins.datasets.drawn_shapes.options import DrawnShapesOptions
from ftk_plugins.datasets.drawn_shapes.scenes import all_scenes
from ftk_plugins.datasets.rows import DividedRows, need_pillow


class DrawnShapes(DividedRows):
    """Every scene once, so that rows that are set aside are scenes that training never sees.

    Columns: ``image``, ``text``, and what the text is made of: ``shape``, ``colour``, ``size`` and ``place`` of one
    shape, ``relation`` of two.
    """

    def __init__(self, options: DrawnShapesOptions) -> None:
        super().__init__(options)
        self.options = options

    @property
    def place(self) -> str:
        return "drawn_shapes"

    def read(self) -> Dataset:
        need_pillow()
        from PIL import Image as Picture

        scenes = all_scenes(self.options.scene)[: self.options.limit]
        columns = {
            "image": [Picture.fromarray(drawn(scene, self.options.pixels)) for scene in scenes],
            "text": [scene.text for scene in scenes],
            **{name: [scene.columns[name] for scene in scenes] for name in scenes[0].columns},
        }
        kinds = {name: Image() if name == "image" else Value("string") for name in columns}
        return Dataset.from_dict(columns, features=Features(kinds))
