"""The objective `instruction` on conversations: laid out by a chat template, learned answer by answer."""

import pytest

from ftk import UserError
from tests.plugins.objectives.instruction_rows import (
    BARE,
    CHAT,
    CHATML,
    PLAIN,
    ROW,
    STRICT,
    TALK,
    THINKING,
    objective,
    read_and_write,
    tokenizer,
)


@pytest.mark.parametrize("template", [CHATML, THINKING, PLAIN])
def test_a_conversation_is_laid_out_as_the_chat_template_does(template):
    processor = tokenizer(template)
    features = objective().encode(TALK, processor)
    expected = processor.apply_chat_template(TALK["messages"], tokenize=False)
    decoded = processor.decode(features["input_ids"]).removesuffix("<|end|>")
    assert decoded.rstrip() == expected.rstrip()


def test_every_answer_of_a_conversation_is_learned_with_its_end():
    prompt, answers = read_and_write(TALK, CHAT)
    assert answers == ["The North Sea<|stop|>", "Ladoga<|stop|>"]
    assert prompt == CHAT.apply_chat_template(TALK["messages"][:3], tokenize=False, add_generation_prompt=True)


def test_what_a_template_puts_before_the_newest_answer_alone_is_learned_there():
    processor = tokenizer(THINKING)
    row = {"messages": [{**message, "content": message["content"].strip()} for message in TALK["messages"]]}
    _, answers = read_and_write(row, processor)
    assert answers == ["The North Sea<|stop|>", "<think>\n\n</think>\n\nLadoga<|stop|>"]


def test_a_template_without_an_end_token_gets_the_end_of_text():
    assert read_and_write(ROW, tokenizer(PLAIN)) == (
        "user: Name a sea.\nassistant: ",
        ["The North Sea\n<|end|>"],
    )


def test_a_template_that_rewrites_earlier_answers_is_refused():
    rewriting = CHATML.replace(
        "message['content'] | trim", "message['content'][:3] if not loop.last else message['content']"
    )
    with pytest.raises(UserError, match="changes message 2"):
        objective().encode(TALK, tokenizer(rewriting))


def test_messages_after_the_last_answer_are_left_out():
    longer = {"messages": [*TALK["messages"], {"role": "user", "content": "Thanks."}]}
    assert read_and_write(longer, CHAT) == read_and_write(TALK, CHAT)


def test_fields_that_other_rows_fill_are_not_shown_to_the_template():
    processor = tokenizer(
        CHATML.replace("{{ message['role'] }}", "{{ message['role'] }}{{ 'x' if 'name' in message }}")
    )
    row = {"messages": [{**message, "name": None} for message in TALK["messages"]]}
    assert read_and_write(row, processor) == read_and_write(TALK, processor)


def test_messages_need_a_chat_template():
    with pytest.raises(UserError, match="no chat template"):
        objective().encode(TALK, BARE)


def test_what_the_chat_template_refuses_is_said():
    with pytest.raises(UserError, match="no system role"):
        objective(system="Be brief.").encode(ROW, tokenizer(STRICT))


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{{ 1 // 0 }}", "ZeroDivisionError"), ("{{ messages[0].content + 1 }}", "TypeError")],
)
def test_a_template_that_fails_is_named_as_the_place(template, reason):
    """In training rows, and in prompts, where it is no evaluator's doing."""
    processor = tokenizer(template)
    for read in (objective().encode, objective().prompt):
        with pytest.raises(UserError, match=f"the model's chat template fails on the row: {reason}") as refused:
            read(TALK, processor)
        assert "mend the template: `chat_template`" in refused.value.hint
