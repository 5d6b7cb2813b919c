"""Labelled sentences as rows of token ids: the tokenizer of BERT with its own vocabulary, and the data sets SST-2 and TREC."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np

from he_backend.errors import EngineError, InputError
from he_backend.zoo.data_files import data_file
from he_backend.zoo.dataset import DataSet

Labelled = Tuple[List[str], List[int]]  # sentences and their labels

VOCABULARY = "bert-base-uncased-vocab.txt"
VOCABULARY_SOURCE = "https://huggingface.co/google-bert/bert-base-uncased (vocab.txt)"
SST2_SOURCE = "https://gluebenchmark.com (SST-2: Socher et al., EMNLP 2013)"
TREC_SOURCE = "https://github.com/harvardnlp/sent-conv-torch (TREC: Li and Roth, COLING 2002)"
IDS = 30522  # entries of the vocabulary
SST2_LENGTH, TREC_LENGTH = 48, 20


def encode(sentences: Sequence[str], length: int, folder: Path | None = None) -> np.ndarray:
    """Token ids int64 [sentences, length] as BERT takes them: [CLS] pieces [SEP], cut to `length` or filled up with [PAD], which is 0.

    The pieces are those of bert-base-uncased (WordPiece; Devlin et al., NAACL 2019), so any tokenizer for that model gives the same rows.

    Raises:
        NotFoundError: the vocabulary is missing; the message says where it is published.
        InputError: the vocabulary is another one, or there is no sentence.
        EngineError: the package `tokenizers` is not installed.
    """
    path = data_file(folder, "bert_tiny", VOCABULARY, VOCABULARY_SOURCE)
    try:
        from tokenizers import BertWordPieceTokenizer
    except ImportError as missing:
        raise EngineError("sentences need a tokenizer: pip install 'he-nn[text]'") from missing
    if not len(sentences):
        raise InputError("there is no sentence to encode")
    tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    if tokenizer.get_vocab_size() != IDS or tokenizer.token_to_id("[PAD]") != 0:
        raise InputError(f"{path} is not the vocabulary of bert-base-uncased: fetch it again from {VOCABULARY_SOURCE}")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return np.array([row.ids for row in tokenizer.encode_batch(list(sentences))], np.int64)


def sst2(folder: Path | None = None, train: bool = True) -> DataSet:
    """GLUE's SST-2: phrases and sentences of film reviews, negative (0) or positive (1); 67349 training rows, and its 872 development rows
    as test rows (the labels of GLUE's own test rows are not published). int64 [rows, 48].

    Args and raises as `encode`; without `train` the training rows are left empty.
    """
    training = [glue_lines(_sst2_file(folder, f"glue_sst2_train_{part}pct.tsv")) for part in (90, 10)] if train else []
    test = glue_lines(_sst2_file(folder, "glue_sst2_dev.tsv"))
    return _data_set("sst2", 2, SST2_LENGTH, _joined(training), test, folder)


def trec(folder: Path | None = None, train: bool = True) -> DataSet:
    """TREC's questions by what they ask for, in six classes: 5452 training and 500 test rows, int64 [rows, 20].

    Args and raises as `encode`; without `train` the training rows are left empty.
    """
    names = ("TREC.train.all", "TREC.test.all")
    files = [data_file(folder, "text", name, TREC_SOURCE) for name in names]
    training: Labelled = labelled_lines(files[0], 6) if train else ([], [])
    return _data_set("trec", 6, TREC_LENGTH, training, labelled_lines(files[1], 6), folder)


def glue_lines(path: Path) -> Labelled:
    """Sentences and labels of a GLUE file: one header line, then sentence, tab, 0 or 1. Raises InputError for another line."""
    texts, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if number == 1 or not line.strip():
            continue
        text, tab, label = line.rpartition("\t")
        if not tab or label.strip() not in ("0", "1"):
            raise InputError(f"{path}, line {number}: expected a sentence, a tab, and 0 or 1")
        texts.append(text)
        labels.append(int(label))
    return texts, labels


def labelled_lines(path: Path, classes: int) -> Labelled:
    """Sentences and labels of a file of lines "label sentence" in latin-1. Raises InputError for another line."""
    texts, labels = [], []
    for number, line in enumerate(path.read_text(encoding="latin-1").split("\n"), 1):
        if not line.strip():
            continue
        label, _, text = line.partition(" ")
        if label not in map(str, range(classes)) or not text.strip():
            raise InputError(f"{path}, line {number}: expected a label from 0 to {classes - 1}, a space, and a sentence")
        texts.append(text)
        labels.append(int(label))
    return texts, labels


def _data_set(name: str, classes: int, length: int, train: Labelled, test: Labelled, folder: Path | None) -> DataSet:
    ids = encode([*train[0], *test[0]], length, folder)
    labels, first = np.array([*train[1], *test[1]], np.int64), len(train[0])
    return DataSet(name, classes, ids[:first], labels[:first], ids[first:], labels[first:], IDS)


def _joined(parts: Sequence[Labelled]) -> Labelled:
    return [text for texts, _ in parts for text in texts], [label for _, labels in parts for label in labels]


def _sst2_file(folder: Path | None, name: str) -> Path:
    return data_file(folder, "sst2", name, SST2_SOURCE)
