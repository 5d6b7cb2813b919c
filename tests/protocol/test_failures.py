"""Errors cross the channel as what they are; errors of other kinds say nothing."""

from __future__ import annotations

import inspect

import pytest

from he_backend import errors
from he_backend.protocol.failures import INTERNAL, KINDS, MOST_CHARACTERS, error_of, failure_of
from he_backend.protocol.messages import Failure


@pytest.mark.parametrize("cls", KINDS.values(), ids=lambda cls: cls.__name__)
def test_error_arrives_as_its_class(cls):
    error = error_of(failure_of(cls("field bits is 99, allowed are 4 to 24")))

    assert type(error) is cls
    assert str(error) == "the other side answered: field bits is 99, allowed are 4 to 24"


def test_table_names_every_class_of_the_family():
    family = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.HeError)}

    assert set(KINDS.values()) == family - {errors.HeError}


def test_problems_of_a_model_travel_in_the_message():
    error = errors.ModelError("1 node cannot be run:", [errors.Unsupported("n1", "Loop", "has a body", "unroll it")])

    assert "n1 (Loop): has a body; instead: unroll it" in str(error_of(failure_of(error)))


def test_other_errors_tell_nothing():
    failure = failure_of(KeyError("/var/lib/secret path and value 0.123"))

    assert failure == INTERNAL
    assert "secret" not in str(error_of(failure))
    assert type(error_of(failure)) is errors.EngineError


def test_unknown_kind_is_a_protocol_error():
    assert type(error_of(Failure("later-kind", "text"))) is errors.ProtocolError


def test_a_peers_text_is_made_harmless():
    text = str(error_of(Failure("input", "a\x1b[2Jb\r\nc" + "x" * 50_000)))

    assert "\x1b" not in text and "\r" not in text and "a?[2Jb?\nc" in text
    assert len(text) < MOST_CHARACTERS + 100
