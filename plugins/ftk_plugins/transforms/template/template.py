"""The transform `template`: a column made of the others, row by row, by a template that can reach nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Value
from jinja2 import StrictUndefined, TemplateError, UndefinedError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ftk import UserError, did_you_mean
from ftk.parts import Effect, Tally, Transform
from ftk_plugins.transforms.rows import rewritten, with_column
from ftk_plugins.transforms.template.options import TemplateOptions


class Template(Transform):
    """Writes a column; a name that is no column is an error, and so is what Jinja's sandbox forbids."""

    def __init__(self, options: TemplateOptions) -> None:
        self.options = options
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        self._template = environment.from_string(options.template)
        parsed = environment.parse(options.template)
        self._names = sorted(meta.find_undeclared_variables(parsed) - set(environment.globals))
        self._tally = Tally()

    def apply(self, dataset: Dataset) -> Dataset:
        self._tally = Tally()
        for name in self._names:
            if name not in dataset.column_names:
                hint = did_you_mean(name, dataset.column_names)
                raise UserError(f"the template names `{name}`, and there is no such column", hint)
        if not self._names:
            raise UserError(
                "the template names no column, so that all rows would say the same",
                "write columns in double braces, as in {{ question }}; `map_columns` fills a column with one value",
            )
        features = Features({**dataset.features, self.options.column: Value("string")})
        return rewritten(dataset, self._written, features)

    def effects(self) -> tuple[Effect, ...]:
        return self._tally.effects()

    def _written(self, table: pa.Table, first: int) -> pa.Table:
        columns = [table.column(name).to_pylist() for name in self._names]
        texts = [
            self._text(dict(zip(self._names, values, strict=True)), number)
            for number, values in enumerate(zip(*columns, strict=True), start=first + 1)
        ]
        self._tally.changed(f"with `{self.options.column}` written", texts[0], len(texts))
        return with_column(table, self.options.column, texts, pa.string())

    def _text(self, row: dict[str, Any], number: int) -> str:
        try:
            return self._template.render(row)
        except SecurityError as error:
            raise UserError(
                f"row {number}: the template may not do that: {error}", "it can read columns alone"
            ) from None
        except UndefinedError as error:
            raise UserError(f"row {number}: the template finds nothing: {error}", "ask with `is defined`") from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"row {number}: the template fails: {error}", "mend it, or the row") from None
