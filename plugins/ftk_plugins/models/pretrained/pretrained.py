"""The model source `pretrained`: from the Hugging Face hub, a folder or a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftk.parts import Head, Loaded, ModelSource
from ftk_plugins.models.calls import explained, quiet
from ftk_plugins.models.loading import load_model, load_processor, load_saved, outline_model
from ftk_plugins.models.pretrained.new_tokens import add_tokens, mark_tokens, read_tokens
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.places import Place, find_place, fingerprint
from ftk_plugins.models.pretrained.quantizing import quantization_of, quantizing, settle
from ftk_plugins.models.tokenizers import fit_tokenizer, set_chat_template


class Pretrained(ModelSource):
    """Reads a model and its tokenizer or image processor with the Auto classes of Transformers."""

    def __init__(self, options: PretrainedOptions) -> None:
        self.options = options

    def identity(self) -> str:
        """A hash of the model's files and of those that options name; of a model on the hub, its commit."""
        options, place = self.options, self._place()
        with quiet(), explained(options.path, place.path):
            found = [fingerprint(place.path, place.gguf_file, options.revision, on_hub="config.json")]
            if options.tokenizer is not None:
                found.append(fingerprint(options.tokenizer, on_hub="tokenizer_config.json"))
            if options.chat_template is not None:
                found.append(fingerprint(options.chat_template))
            if isinstance(options.new_tokens, str):
                found.append(fingerprint(options.new_tokens))
        return "\n".join(found)

    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Load the model onto the CPU in ``dtype``; ``corpus`` is not read."""
        place = self._place()
        how = quantization_of(self.options)
        with quantizing(self.options):
            model = load_model(head=head, seed=self.options.seed, quantization=how, **self._arguments(place))
        if how is not None:
            settle(model)
        return self._with_processor(model, place, head)

    def outline(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Read the configuration and the processor; weights need not be there. ``corpus`` is not read."""
        place = self._place(weights=False)
        return self._with_processor(outline_model(head=head, **self._arguments(place)), place, head)

    def load_folder(self, folder: Path, head: Head) -> Loaded:
        """Load what a stage saved, in the type it was saved in; the processor is the saved one."""
        loaded = load_saved(folder, head, self.options, self.options.trust_remote_code)
        if tokens := read_tokens(self.options.new_tokens):
            mark_tokens(loaded.model, loaded.processor, tokens)
        return loaded

    def _place(self, weights: bool = True) -> Place:
        options = self.options
        return find_place(options.path, options.gguf_file, revision=options.revision, weights=weights)

    def _arguments(self, place: Place) -> dict[str, Any]:
        return {
            "path": place.path, "gguf_file": place.gguf_file, "dtype": self.options.dtype,
            "attention": self.options.attention, "revision": self.options.revision,
            "trust_remote_code": self.options.trust_remote_code,
        }  # fmt: skip

    def _with_processor(self, model: Any, place: Place, head: Head) -> Loaded:
        options = self.options
        if options.tokenizer is None:
            processor = load_processor(
                place.path,
                head,
                gguf_file=place.gguf_file,
                revision=options.revision,
                trust_remote_code=options.trust_remote_code,
            )
        else:
            processor = load_processor(options.tokenizer, head, trust_remote_code=options.trust_remote_code)
        fit_tokenizer(model, processor, chosen=options.tokenizer is not None, name=options.tokenizer or options.path)
        if tokens := read_tokens(options.new_tokens):
            add_tokens(model, processor, tokens, options.new_token_start)
        if options.chat_template is not None:
            set_chat_template(processor, options.chat_template)
        return Loaded(model, processor)
