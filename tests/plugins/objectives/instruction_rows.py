"""Rows, chat templates and tokenizers for the tests of the objective `instruction`."""

import numpy as np

from ftk.testing import toy_tokenizer
from ftk_plugins.objectives.instruction.instruction import Instruction
from ftk_plugins.objectives.instruction.options import InstructionOptions

CHATML = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|stop|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{% if loop.last and message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
ROW = {"instruction": "Name a sea.", "input": "", "output": "The North Sea"}
TALK = {
    "messages": [
        {"role": "user", "content": "Name a sea."},
        {"role": "assistant", "content": " The North Sea "},
        {"role": "user", "content": "And a lake?"},
        {"role": "assistant", "content": "Ladoga"},
    ]
}


def tokenizer(template=None):
    made = toy_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|stop|>"]})
    made.chat_template = template
    return made


BARE, CHAT = tokenizer(), tokenizer(CHATML)


def objective(**options):
    return Instruction(InstructionOptions(**options))


def written(features, processor):
    """What is learned, in runs of neighbouring targets."""
    runs, labels = [[]], features["labels"]
    for token in labels:
        if token == -100:
            runs.append([])
        else:
            runs[-1].append(token)
    assert ((labels == -100) | (labels == features["input_ids"])).all()
    return [processor.decode(run) for run in runs if run]


def read_and_write(row, processor=BARE, **options):
    """The prompt and what is learned, as texts; the prompt is where the last answer begins."""
    part = objective(**options)
    features, prompt = part.encode(row, processor), part.prompt(row, processor)
    assert features["input_ids"].dtype == features["labels"].dtype == np.int32
    assert features["input_ids"][: len(prompt)].tolist() == prompt
    assert features["labels"][len(prompt)] != -100
    return processor.decode(prompt), written(features, processor)
