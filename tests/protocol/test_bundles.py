"""Frames in one message and out again; what is cut off or damaged is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_backend.errors import ProtocolError
from he_backend.protocol.bundles import BUNDLE_BYTES, bundle, bundles, small_or_stream, unbundle

FRAMES = st.lists(st.binary(max_size=300), max_size=12)


@settings(max_examples=100, deadline=None)
@given(FRAMES)
def test_frames_come_out_as_they_went_in(frames):
    assert list(unbundle(bundle(frames))) == frames
    assert [frame for message in bundles(frames) for frame in unbundle(message)] == frames


@settings(max_examples=100, deadline=None)
@given(FRAMES.filter(len), st.data())
def test_a_message_that_is_cut_off_is_refused(frames, data):
    message = bundle(frames)
    whole = {sum(len(frame) + 4 for frame in frames[:count]) for count in range(len(frames) + 1)}
    size = data.draw(st.sampled_from(sorted(set(range(len(message))) - whole)))

    with pytest.raises(ProtocolError, match="cut off"):
        list(unbundle(message[:size]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_clear_error(message):
    with contextlib.suppress(ProtocolError):
        assert sum(len(frame) + 4 for frame in unbundle(message)) == len(message)


def test_messages_are_closed_when_they_are_large_enough():
    half = bytes(BUNDLE_BYTES // 2)

    sizes = [len(list(unbundle(message))) for message in bundles([half] * 5)]

    assert sizes == [2, 2, 1] and list(bundles([])) == []


def test_what_is_large_is_not_gathered():
    made = []

    def frames():
        for index in range(10):
            made.append(index)
            yield bytes(BUNDLE_BYTES // 2)

    small, stream = small_or_stream(frames())

    assert small is None and len(made) == 2
    assert len(list(stream)) == 10
    small, stream = small_or_stream(iter([b"a", b"b"]))
    assert list(unbundle(small)) == list(stream) == [b"a", b"b"]
