"""The fields of a request, from JSON or a form, checked: what came, what is allowed. The same table makes the OpenAPI document."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from he_backend.errors import ParameterError

REQUIRED = object()
MOST_CHARACTERS = 20_000
_YES, _NO = ("yes", "true", "1", "on"), ("no", "false", "0", "off", "")
_MOST_NAMED = 10  # of unknown names in an error


class Field(NamedTuple):
    """One field: its name, its type (str, int or bool), what it is when not given (REQUIRED: it must be), and what it means."""

    name: str
    kind: type
    default: Any
    doc: str
    least: int | None = None
    most: int | None = None


def read_fields(fields: Sequence[Field], values: Mapping[str, Any], only_these: bool = False) -> dict[str, Any]:
    """The value of every field; text that stands for a number or yes/no is taken as such, because forms have nothing else.

    Raises ParameterError that names each field that is wrong; with `only_these` also each name that is not in the table, otherwise these
    are left alone.
    """
    found, problems = {}, _unknown(fields, values) if only_these else []
    for field in fields:
        value = values.get(field.name)
        try:
            found[field.name] = _required(field) if value is None else _READERS[field.kind](field, value)
        except ParameterError as problem:
            problems.append(f"{field.name}: {problem}")
    if problems:
        raise ParameterError("; ".join(problems))
    return found


def schema(fields: Sequence[Field], only_these: bool = False) -> dict[str, Any]:
    """The fields as a JSON schema: every form that read_fields takes, text that stands for a number or yes/no included."""
    properties: dict[str, Any] = {}
    for field in fields:
        limits = {"minimum": field.least, "maximum": field.most} if field.kind is int else {}
        given = {} if field.default is REQUIRED or field.default is None else {"default": field.default}
        pattern = {"pattern": _answer((*_YES, *_NO[:-1]))} if field.kind is bool and field.default is REQUIRED else {}
        properties[field.name] = {
            **_TYPES[field.kind],
            **pattern,
            "type": [*_TYPES[field.kind]["type"], *(() if field.default is REQUIRED else ("null",))],
            "description": field.doc,
            **{name: value for name, value in limits.items() if value is not None},
            **given,
        }
    required = [field.name for field in fields if field.default is REQUIRED]
    closed = {"additionalProperties": False} if only_these else {}
    return {"type": "object", "properties": properties, "required": required, **closed}


def _unknown(fields: Sequence[Field], values: Mapping[str, Any]) -> list[str]:
    there = {field.name for field in fields}
    names = [_shown(name) for name in values if name not in there]
    if not names:
        return []
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return [f"{', '.join(names[:_MOST_NAMED])}{more}: there is no such field; there are {', '.join(field.name for field in fields)}"]


def _required(field: Field) -> Any:
    if field.default is REQUIRED:
        raise ParameterError(f"is missing; {field.doc}")
    return field.default


def _text(field: Field, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS or "\0" in value:
        raise ParameterError(f"{_shown(value)}; allowed: text of at most {MOST_CHARACTERS} characters")
    if any("\ud800" <= letter <= "\udfff" for letter in value):  # JSON can name them; no database and no answer can hold them
        raise ParameterError(f"{_shown(value)}; half of a surrogate pair is no character; allowed: text")
    return value


def _integer(field: Field, value: Any) -> int:
    try:
        number = int(value.strip()) if isinstance(value, str) and len(value) < 40 else value
    except ValueError:
        number = None
    if type(number) is bool or (isinstance(number, float) and number.is_integer()):  # JSON's 3.0 is a whole number
        number = int(number)
    within = type(number) is int and (field.least is None or number >= field.least) and (field.most is None or number <= field.most)
    if not within:
        most = "" if field.most is None else f" to {field.most}"
        raise ParameterError(f"{_shown(value)}; allowed: a whole number" + ("" if field.least is None else f" from {field.least}{most}"))
    assert isinstance(number, int)
    return number


def _yes_or_no(field: Field, value: Any) -> bool:
    word = str(value).strip().lower() if isinstance(value, (str, bool, int)) else "?"
    if not word and field.default is REQUIRED:  # what a form sends for an empty box is no answer where one is asked for
        _required(field)
    if word in _YES or word in _NO:
        return word in _YES
    raise ParameterError(f"{_shown(value)}; allowed: yes or no (true or false)")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _words(words: Sequence[str]) -> str:
    """A pattern of these words in any case."""
    return "|".join("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word) for word in words)


def _answer(words: Sequence[str]) -> str:
    """A pattern of one of these words, with white space around."""
    return rf"^\s*({_words(words)})\s*$"


_TYPES: Mapping[type, Mapping[str, Any]] = {
    str: {"type": ["string"], "maxLength": MOST_CHARACTERS, "pattern": r"^[^\x00]*$"},
    int: {"type": ["integer", "boolean", "string"], "pattern": r"^\s*[+-]?\d+(_\d+)*\s*$"},
    bool: {"type": ["boolean", "integer", "string"], "minimum": 0, "maximum": 1, "pattern": _answer((*_YES, *_NO))},
}
_READERS = {str: _text, int: _integer, bool: _yes_or_no}
