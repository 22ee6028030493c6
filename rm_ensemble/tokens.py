"""From text to token ids so that the special tokens of a template count, and those that a person typed are text."""

import re

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from curate.errors import CurateError

Messages = list[dict[str, str]]


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast, special_is_text: bool = True) -> Tokenizer:
    """A copy that neither cuts nor pads (all-MiniLM's file says 128 for both); special tokens in a text stay text."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = special_is_text
    return plain


class ChatEncoder:
    """Renders messages by a chat template; the template's special tokens count, those in a message are text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.template_text = plain_tokenizer(tokenizer, special_is_text=False)
        self.user_text = plain_tokenizer(tokenizer)
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self.special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")

    def ids(self, messages: Messages, add_generation_prompt: bool) -> list[int]:
        """Token ids of the rendering; a special token's text in a message is a private-use mark in between."""
        found = [hit for message in messages for hit in self.special.findall(message["content"])]
        numbers = iter(range(len(found)))
        hidden = [
            {**m, "content": self.special.sub(lambda _: f"\ue000{next(numbers)}\ue001", m["content"])} for m in messages
        ]
        text = self._render(hidden, add_generation_prompt)
        pieces = re.split("\ue000(\\d+)\ue001", text) if found else [text]  # odd ones are numbers of hidden texts
        encodings = (
            self.user_text.encode(found[int(piece)], add_special_tokens=False)
            if i % 2
            else self.template_text.encode(piece, add_special_tokens=False)
            for i, piece in enumerate(pieces)
        )
        return [token for encoding in encodings for token in encoding.ids]

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise CurateError(
                f"the backbone's chat template refuses a conversation of {roles} ({error}); choose another --backbone"
            ) from error
        return str(text)
