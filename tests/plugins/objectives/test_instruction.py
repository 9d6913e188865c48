"""The objective `instruction`: what is read, what is learned, and where the one ends."""

import pytest
import torch
from pydantic import ValidationError

from ftk import UserError
from ftk.parts import lengths_of
from ftk.testing import toy_context, toy_examples, toy_model
from ftk_plugins.objectives.instruction.options import InstructionOptions
from tests.plugins.objectives.instruction_rows import (
    BARE,
    CHAT,
    PLAIN,
    ROW,
    TALK,
    THINKING,
    objective,
    read_and_write,
    tokenizer,
)


def test_alpaca_rows_without_a_chat_template_get_headings():
    prompt = "### Instruction:\nName a sea.\n\n### Response:\n"
    assert read_and_write(ROW) == (prompt, ["The North Sea<|end|>"])
    assert read_and_write({"instruction": "Name a sea.", "output": 7})[1] == ["7<|end|>"]
    prompt, _ = read_and_write({**ROW, "input": "In Europe."})
    assert prompt == "### Instruction:\nName a sea.\n\n### Input:\nIn Europe.\n\n### Response:\n"


def test_alpaca_rows_use_the_chat_template_where_there_is_one():
    prompt = "<|start|>user\nName a sea.<|stop|>\n<|start|>assistant\n"
    assert read_and_write(ROW, CHAT) == (prompt, ["The North Sea<|stop|>"])
    assert "Name a sea.\n\nIn Europe.<|stop|>" in read_and_write({**ROW, "input": "In Europe."}, CHAT)[0]


def test_chat_template_never_keeps_to_the_headings():
    assert read_and_write(ROW, CHAT, chat_template="never") == read_and_write(ROW, BARE)


def test_a_template_goes_before_the_chat_template():
    options = {"template": "问题: {instruction}\n回答:"}
    expected = ("问题: Name a sea.\n回答:", ["The North Sea<|end|>"])
    assert read_and_write(ROW, CHAT, **options) == read_and_write(ROW, BARE, **options) == expected


def test_a_template_reads_any_column_and_keeps_doubled_braces():
    row = {"question": "2+2?", "lang": "en", "output": "4"}
    assert read_and_write(row, template="{{{lang}}} {question}\nA:")[0] == "{en} 2+2?\nA:"
    row = {"prompt": "2+2?", "completion": "4"}
    assert read_and_write(row, template="Q: {prompt} {input}A:") == ("Q: 2+2? A:", ["4<|end|>"])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("Q: {}", "no placeholder"),
        ("Q: {instruction!r}", "instruction!r"),
        ("Q: {instruction:>9}", "instruction:>9"),
        ("Q: {row.name}", "no placeholder"),
        ("Q: {row[0]}", "no placeholder"),
        ("Q: {0}", "no placeholder"),
        ("Q: {instruction", "for braces that are text"),
        ("Q: instruction}", "for braces that are text"),
        ("Q: instruction", "names no column"),
        ("Q: {instruction} {output}", "holds the answer"),
    ],
)
def test_template_syntax_is_checked(template, words):
    with pytest.raises(ValidationError, match=words):
        InstructionOptions(template=template)


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(ValidationError, match="rows of columns"):
        InstructionOptions(template="{instruction}", format="messages")
    with pytest.raises(ValidationError, match="leave out"):
        InstructionOptions(chat_template="never", format="messages")


def test_prompt_and_completion_are_joined_as_they_are():
    row = {"prompt": "2 + 2 =", "completion": " 4"}
    assert read_and_write(row, CHAT) == ("2 + 2 =", [" 4<|end|>"])


def test_format_chooses_among_a_rows_columns():
    row = {**ROW, "prompt": "2 + 2 =", "completion": " 4", **TALK}
    assert read_and_write(row, CHAT)[1][-1] == "Ladoga<|stop|>"
    assert read_and_write(row, CHAT, format="alpaca")[1] == ["The North Sea<|stop|>"]
    assert read_and_write(row, CHAT, format="prompt_completion")[1] == [" 4<|end|>"]
    assert read_and_write({**row, "messages": None}, CHAT)[1] == ["The North Sea<|stop|>"]


def test_system_stands_before_the_prompt():
    assert read_and_write(ROW, CHAT, system="Be brief.")[0].startswith(
        "<|start|>system\nBe brief.<|stop|>\n<|start|>user"
    )
    assert read_and_write(TALK, CHAT, system="Be brief.")[0].startswith("<|start|>system\nBe brief.<|stop|>\n")
    assert read_and_write(ROW, BARE, system="Be brief.")[0].startswith("Be brief.\n\n### Instruction:\n")
    own = {"messages": [{"role": "system", "content": "Be kind."}, *TALK["messages"]]}
    assert "brief" not in read_and_write(own, CHAT, system="Be brief.")[0]


def test_loss_on_all_learns_the_prompt_too():
    features = objective(loss_on="all").encode(ROW, BARE)
    assert (features["labels"] == features["input_ids"]).all()


def test_a_prompt_needs_no_answer():
    asked = {"instruction": "Name a sea.", "keywords": ["North"]}
    part = objective()
    assert part.prompt(asked, CHAT) == part.prompt(ROW, CHAT)
    assert part.prompt({"messages": TALK["messages"][:1]}, CHAT) == part.prompt(ROW, CHAT)


def test_answers_and_texts_are_those_of_the_row():
    part = objective()
    assert part.answer(ROW) == "The North Sea"
    assert part.answer(TALK) == "Ladoga"
    assert part.answer({"prompt": "a", "completion": " b"}) == " b"
    assert list(part.texts(ROW)) == ["Name a sea.", "The North Sea"]
    assert list(part.texts(TALK)) == [message["content"] for message in TALK["messages"]]
    assert list(objective(template="{question}").texts({"question": "2+2?", "output": 4})) == ["2+2?", "4"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "a", "reply": "b"}, "the row has `question`, `reply`"),
        ({"instruction": "a"}, "no answer in column `output`"),
        ({"instruction": "a", "output": "  "}, "`output` is empty"),
        ({"instruction": " ", "output": "a"}, "`instruction` is empty"),
        ({"instruction": "a", "output": ["b"]}, "holds a list"),
        ({"prompt": "a", "completion": None}, "no answer in column `completion`"),
        ({"prompt": "", "completion": "a"}, "`prompt` is empty"),
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no message is the assistant's"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]},
            "message 2",
        ),
        ({"messages": [{"content": "a"}]}, "message 1 has no `role`"),
        ({"messages": [{"role": "user", "content": None}]}, r"message 1 \(user\) has no text"),
    ],
)
def test_rows_with_nothing_to_learn_are_refused(row, words):
    with pytest.raises(UserError, match=words):
        objective().encode(row, CHAT)


def test_a_column_that_the_template_names_must_be_there():
    with pytest.raises(UserError, match="no text in column `topic`; the row has `instruction`, `input`, `output`"):
        objective(template="{topic}: {instruction}").encode(ROW, BARE)


def test_long_rows_are_refused_unless_told_how_to_cut():
    assert len(objective(max_length=58).encode(ROW, BARE)["input_ids"]) == 58
    with pytest.raises(UserError, match="the row has 58 tokens, and `max_length` is 57"):
        objective(max_length=57).encode(ROW, BARE)


def test_cut_start_takes_the_prompts_beginning():
    prompt, answers = read_and_write(ROW, BARE, max_length=40, long_rows="cut_start")
    assert (prompt, answers) == ("ame a sea.\n\n### Response:\n", ["The North Sea<|end|>"])
    with pytest.raises(UserError, match="the answer alone has 14 tokens"):
        objective(max_length=14, long_rows="cut_start").encode(ROW, BARE)
    unanswered = {"instruction": "Name a sea."}
    assert len(objective(max_length=20, long_rows="cut_start").prompt(unanswered, BARE)) == 19


def test_cut_start_keeps_the_begin_of_text_token():
    from tokenizers.processors import TemplateProcessing

    processor = tokenizer()
    processor.add_special_tokens({"bos_token": "<|begin|>"})
    begin = ("<|begin|>", processor.bos_token_id)
    processor.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    assert read_and_write(ROW, processor)[0].startswith("<|begin|>### Instruction")
    prompt, _ = read_and_write(ROW, processor, max_length=40, long_rows="cut_start")
    assert prompt == "<|begin|>me a sea.\n\n### Response:\n"


def test_cut_end_takes_the_answers_end():
    _, answers = read_and_write(ROW, BARE, max_length=48, long_rows="cut_end")
    assert answers == ["The "]
    with pytest.raises(UserError, match="the prompt alone has 44 tokens"):
        objective(max_length=44, long_rows="cut_end").encode(ROW, BARE)


@pytest.mark.parametrize("options", [{}, {"template": "{instruction}\n"}, {"loss_on": "all"}])
@pytest.mark.parametrize("processor", [BARE, CHAT, tokenizer(THINKING), tokenizer(PLAIN)])
def test_a_batch_is_encoded_as_its_rows(processor, options):
    part = objective(**options)
    rows = [
        ROW,
        *([TALK] if processor.chat_template and not part.options.template else []),
        {**ROW, "output": "Salt \n"},
    ]
    for features, row in zip(part.encode_batch(rows, processor), rows, strict=True):
        alone = part.encode(row, processor)
        assert all((features[name] == alone[name]).all() for name in ("input_ids", "labels"))


def test_packed_answers_are_learned_as_apart():
    rows = [{"instruction": "x" * n, "output": "y" * m} for n, m in ((5, 3), (2, 9), (1, 1), (4, 4))]
    part, model = objective(template="{instruction}", packing=True, max_length=20), toy_model()
    model.resize_token_embeddings(len(BARE))
    examples = toy_examples(rows, part, BARE)
    assert lengths_of(examples.encoded).tolist() == [9, 12, 3, 9]
    assert lengths_of(examples.items).tolist() == [18, 15]
    assert toy_examples(rows, objective(template="{instruction}"), BARE).items is not examples.items
    with torch.no_grad():
        whole, apart = (
            part.loss(model, part.collate(items), toy_context(model, part))
            for items in (examples.items, examples.encoded)
        )
    assert whole.count == apart.count == 21
    torch.testing.assert_close(whole.total, apart.total, rtol=1e-5, atol=1e-4)


def test_a_model_learns_the_answer_and_then_writes_it_after_the_prompt():
    part, model = objective(template="{instruction}"), toy_model().train()
    rows = [{"instruction": "cat", "output": "meow"}, {"instruction": "a dog", "output": "wow"}]
    batch = part.collate([part.encode(row, BARE) for row in rows])
    model.resize_token_embeddings(len(BARE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (part.loss(model, batch, toy_context(model, part)).total / batch.count).backward()
        optimizer.step()
    for row in rows:
        prompt = torch.tensor([part.prompt(row, BARE)])
        new = model.eval().generate(prompt, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(prompt))
        assert BARE.decode(new[0, prompt.shape[1] :]) == row["output"] + "<|end|>"
