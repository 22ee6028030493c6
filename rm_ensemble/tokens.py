"""From text to token ids so that the special tokens of a template count, and those that a person typed are text."""

import json
import re

from jinja2 import TemplateError
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from curate.errors import CurateError

Messages = list[dict[str, str]]


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast, special_is_text: bool = True) -> Tokenizer:
    """A copy that neither cuts nor pads (all-MiniLM's file says 128 for both); special tokens in a text stay text."""
    state = tokenizer.backend_tokenizer.to_str()
    is_unigram = isinstance(tokenizer.backend_tokenizer.model, Unigram)
    plain = Tokenizer.from_str(_special_apart(state) if is_unigram and special_is_text else state)
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = special_is_text
    return plain


def _special_apart(state: str) -> str:
    """A Unigram tokenizer (DeBERTa's) whose special tokens, pieces as any other, begin with a space, which no text has.

    Otherwise the model finds them in a text whatever `encode_special_tokens` says.
    """
    read = json.loads(state)
    special = {token["content"] for token in read["added_tokens"] if token["special"]}
    for token in read["added_tokens"]:
        token["content"] = " " * token["special"] + token["content"]
    read["model"]["vocab"] = [[" " * (piece in special) + piece, score] for piece, score in read["model"]["vocab"]]
    return json.dumps(read)


class ChatEncoder:
    """Renders messages by a chat template; the template's special tokens count, those in a message are text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.template_text = plain_tokenizer(tokenizer, special_is_text=False)
        self.user_text = plain_tokenizer(tokenizer)
        special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = set(special)
        self.special = re.compile("|".join(map(re.escape, sorted(special.values(), key=len, reverse=True))) or r"(?!)")

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

    def closing(self) -> list[int]:
        """What the template writes after any response, from a special token on: an eos, or <|im_end|> and a newline."""
        question = {"role": "user", "content": "?"}
        one, other = (self.ids([question, {"role": "assistant", "content": text}], False)[::-1] for text in ("a", "b"))
        n_same = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
        same = one[:n_same][::-1]
        start = next((i for i, token in enumerate(same) if token in self.special_ids), n_same)
        return same[start:]

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
