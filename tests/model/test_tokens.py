import shutil

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from review_sentiment.datasets.encoder import PretrainedDataset, TokenizerDataset
from review_sentiment.model.encoder import whole_text_tokenizer
from review_sentiment.model.tokens import encode_texts, truncate
from review_sentiment.params import TokenizeParams


def settings(truncation: str, head_share: float = 0.25) -> TokenizeParams:
    return TokenizeParams(max_tokens=8, scoring_max_tokens=8, truncation=truncation, head_share=head_share)


@pytest.mark.parametrize(
    ("truncation", "expected"), [("head", [0, 1, 2, 3]), ("tail", [6, 7, 8, 9]), ("head_tail", [0, 7, 8, 9])]
)
def test_truncate_keeps_the_named_part(truncation, expected):
    assert truncate(range(10), 4, settings(truncation)) == expected
    assert truncate([5, 6], 4, settings(truncation)) == [5, 6]
    assert truncate([], 4, settings(truncation)) == []


def test_encode_texts_frames_and_counts(tiny_encoder):
    tokenizer = TokenizerDataset(encoder=str(tiny_encoder)).load()
    known = tokenizer.tokenizer.token_to_id

    rows = encode_texts(tokenizer, ["lovely film", "", "film " * 20], 8, settings("head_tail"))
    first = [known(word) for word in ("[CLS]", "lovely", "film", "[SEP]")]
    assert [list(ids) for ids in rows["input_ids"][:2]] == [first, [first[0], first[-1]]]
    assert rows["length"] == [4, 2, 8]
    assert rows["tokens_total"] == [4, 2, 22]


def test_minilm_agrees_with_transformers_own_tokenizer():
    from transformers import AutoTokenizer

    from review_sentiment.datasets.encoder import _find_encoder

    text = "It wasn't boring at all: a café, an UNFORGETTABLE ending!"
    tokenizer = TokenizerDataset(encoder="minilm").load()
    theirs = AutoTokenizer.from_pretrained(_find_encoder("minilm", []))
    ours = encode_texts(tokenizer, [text], 64, settings("head"))["input_ids"][0]
    assert list(ours) == theirs(text)["input_ids"]
    assert tokenizer.max_tokens == 512


def test_training_and_scoring_read_a_text_alike_though_transformers_would_not(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "cased")
    (folder / "tokenizer_config.json").unlink()  # transformers now takes it for a BERT that lowers letters
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    text = "A Lovely film"

    trained_on = TokenizerDataset(encoder=str(folder)).load().tokenizer
    assert trained_on.encode(text).tokens == ["[CLS]", "[UNK]", "[UNK]", "film", "[SEP]"]
    pretrained = PretrainedDataset(encoder=str(folder)).load()
    assert whole_text_tokenizer(pretrained.tokenizer).encode(text).ids == trained_on.encode(text).ids
    pretrained.tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved", local_files_only=True)
    assert whole_text_tokenizer(saved).encode(text).ids == trained_on.encode(text).ids
    assert saved.pad_token_id == trained_on.token_to_id("[PAD]")
