"""What leaves the client: no row, no scale, no key; shown by a test that the engine without encryption fails."""

from __future__ import annotations

import numpy as np
import pytest

from he_backend.ckks import engines, serial
from he_backend.ckks.clear import centered
from he_backend.protocol import messages
from tests.parties import client_of, digits, service_of


def sent_tensors(frames):
    """The tensors in a recording of all frames from client to server."""
    header, payload = None, []
    for frame in frames:
        message = messages.decode(frame)
        if isinstance(message, messages.RoundRequest):
            header, payload = serial.read_header(message.header), []
        elif isinstance(message, messages.Block) and header is not None:
            payload.append(bytes(message.payload))
        elif isinstance(message, messages.End) and header is not None:
            yield serial.from_pieces(header, payload)
            header = None


def largest_correlation(frames, rows):
    """How well the best of the first round's polynomials follows some feature of the rows, whatever its scale: 0 to 1."""
    body = next(iter(sent_tensors(frames))).body[0, :, 0, : len(rows)]
    modulus = next(iter(sent_tensors(frames))).moduli[0]
    sent = centered(body, modulus).astype(np.float64)
    features = rows.reshape(len(rows), -1).T
    keep = features.std(axis=1) > 0
    features = features[keep] - features[keep].mean(axis=1, keepdims=True)
    sent = sent[sent.std(axis=1) > 0]
    sent -= sent.mean(axis=1, keepdims=True)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (sent, features)]
    return float(np.abs(unit[0] @ unit[1].T).max())


def record(engine, rows=300):
    program, x, _ = digits(rows)
    client, link = client_of(service_of(program), record=True, engine=engine, preset="N11_L1")
    client.infer("latest", x)
    return b"".join(link.sent), link.sent, x


def test_the_recording_shows_rows_without_encryption():
    _, frames, rows = record("clear")
    assert largest_correlation(frames, rows) > 0.99


@pytest.mark.parametrize("engine", [name for name in engines.available() if name != "clear"])
def test_the_recording_shows_no_row_with_encryption(engine):
    data, frames, rows = record(engine)
    assert largest_correlation(frames, rows) < 0.4  # about 4,000 pairs of 300 random values each: 0.4 is 7 standard deviations
    for row in rows[:50]:
        for dtype in ("<f4", "<f8"):
            assert row.astype(dtype).tobytes() not in data


def test_no_message_has_a_place_for_a_scale_or_a_key():
    fields = {name for message in messages.BODIES for name in message.__dataclass_fields__}
    assert not [name for name in fields if "scale" in name or "key" in name or "secret" in name]
    assert "scale" not in serial.TensorHeader.__dataclass_fields__
