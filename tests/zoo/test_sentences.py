"""Sentences as ids of bert-base-uncased, and the loaders of SST-2 and TREC."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from he_backend.errors import InputError, NotFoundError
from he_backend.zoo import datasets, sentences, shipped


@pytest.fixture
def real():
    """Skips where a data set's files are missing."""
    pytest.importorskip("tokenizers")

    def load(name, **options):
        try:
            return datasets.load(name, **options)
        except NotFoundError as missing:
            pytest.skip(str(missing))

    return load


@pytest.fixture
def vocabulary(tmp_path):
    """A vocabulary of the right size with a few real words in it."""
    pytest.importorskip("tokenizers")
    words = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "un", "##good", "!"]
    words += [f"word{i}" for i in range(sentences.IDS - len(words))]
    (tmp_path / "bert_tiny").mkdir()
    (tmp_path / "bert_tiny" / sentences.VOCABULARY).write_text("\n".join(words) + "\n")
    return tmp_path


def test_sentences_become_pieces_between_marks_and_are_filled_up(vocabulary):
    rows = sentences.encode(["Good film!", "ungood", "plümp"], 6, vocabulary)

    assert rows.dtype == np.int64
    assert rows.tolist() == [[101, 104, 105, 108, 102, 0], [101, 106, 107, 102, 0, 0], [101, 100, 102, 0, 0, 0]]


def test_long_sentences_are_cut_and_keep_their_end_mark(vocabulary):
    assert sentences.encode(["good " * 9], 5, vocabulary).tolist() == [[101, 104, 104, 104, 102]]


def test_another_vocabulary_and_no_sentences_are_refused(vocabulary):
    with pytest.raises(InputError, match="no sentence"):
        sentences.encode([], 5, vocabulary)
    path = vocabulary / "bert_tiny" / sentences.VOCABULARY
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(InputError, match="not the vocabulary of bert-base-uncased"):
        sentences.encode(["good"], 5, vocabulary)


def test_a_missing_vocabulary_is_named_with_its_publisher(tmp_path):
    with pytest.raises(NotFoundError, match=r"bert-base-uncased-vocab\.txt.*https://.*HE_NN_DATA"):
        sentences.encode(["good"], 5, tmp_path)


def write_sst2(folder):
    (folder / "sst2").mkdir()
    for part, lines in (("train_90pct", "good film \t1\nun film\t0\n"), ("train_10pct", "film\t1\n"), ("dev", "good\t1\nungood\t0\n")):
        (folder / "sst2" / f"glue_sst2_{part}.tsv").write_text("sentence\tlabel\n" + lines)


def test_sst2_is_read_from_its_three_files(vocabulary):
    write_sst2(vocabulary)

    data = sentences.sst2(vocabulary)

    assert data.train_x.shape == (3, 48) and data.test_x.shape == (2, 48) and data.ids == sentences.IDS
    assert data.train_y.tolist() == [1, 0, 1] and data.test_y.tolist() == [1, 0]
    assert data.train_x[0, :4].tolist() == [101, 104, 105, 102]
    assert len(sentences.sst2(vocabulary, train=False).train_x) == 0


def test_trec_is_read_from_its_two_files(vocabulary):
    (vocabulary / "text").mkdir()
    (vocabulary / "text" / "TREC.train.all").write_bytes("0 good film\n5 un\x85film\n".encode("latin-1"))
    (vocabulary / "text" / "TREC.test.all").write_bytes(b"3 film\n")

    data = sentences.trec(vocabulary)

    assert data.train_x.shape == (2, 20) and data.train_y.tolist() == [0, 5] and data.test_y.tolist() == [3]


@pytest.mark.parametrize("line", ["no tab 1", "good\t2", "good\tpositive"])
def test_odd_lines_of_sst2_are_refused_by_number(tmp_path, line):
    path = tmp_path / "rows.tsv"
    path.write_text(f"sentence\tlabel\ngood\t1\n{line}\n")

    with pytest.raises(InputError, match=r"rows\.tsv, line 3"):
        sentences.glue_lines(path)


@pytest.mark.parametrize("line", ["6 good", "good", "1 ", "-1 good"])
def test_odd_lines_of_trec_are_refused_by_number(tmp_path, line):
    path = tmp_path / "rows.all"
    path.write_text(f"0 good\n{line}\n")

    with pytest.raises(InputError, match=r"rows\.all, line 2"):
        sentences.labelled_lines(path, 6)


def test_the_usual_splits(real):
    sst2, trec = real("sst2", train=False), real("trec")

    assert sst2.test_x.shape == (872, 48) and np.bincount(sst2.test_y).tolist() == [428, 444]
    assert trec.train_x.shape == (5452, 20) and trec.test_x.shape == (500, 20)
    assert (sst2.test_x[:, 0] == 101).all()


def test_known_ids_of_a_sentence(real):
    real("sst2", train=False)

    rows = sentences.encode(["a gorgeous , witty , seductive movie ."], 12)

    assert rows.tolist() == [[101, 1037, 9882, 1010, 25591, 1010, 23182, 3185, 1012, 102, 0, 0]]


def test_without_sentences_a_text_type_means_its_network_of_digits(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HE_NN_DATA", str(tmp_path))

    with caplog.at_level(logging.WARNING):
        networks = [shipped("RNN"), shipped("BERT")]

    assert [network.dataset for network in networks] == ["digits", "digits"]
    assert any("TREC" in line and "digits" in line for line in caplog.messages)
