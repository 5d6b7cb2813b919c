"""Fields of a request: what forms and JSON may hold, and every refusal names its field."""

from __future__ import annotations

import re

import pytest

from he_backend.errors import ParameterError, SecurityError
from he_backend.web import model_fields
from he_backend.web.fields import REQUIRED, Field, read_fields, schema

FIELDS = (Field("name", str, REQUIRED, "a name"), Field("count", int, 1, "rows", 1, 9), Field("yes", bool, False, "yes or no"))


@pytest.mark.parametrize(
    "values, due",
    [
        ({"name": "a"}, {"name": "a", "count": 1, "yes": False}),
        ({"name": "a", "count": "7", "yes": "Yes", "other": 1}, {"name": "a", "count": 7, "yes": True}),
        ({"name": "", "count": 9, "yes": True}, {"name": "", "count": 9, "yes": True}),
        ({"name": "a", "count": True, "yes": "0"}, {"name": "a", "count": 1, "yes": False}),
        ({"name": "a", "count": 3.0, "yes": None}, {"name": "a", "count": 3, "yes": False}),
    ],
)
def test_values_of_json_and_forms(values, due):
    assert read_fields(FIELDS, values) == due


@pytest.mark.parametrize(
    "values, says",
    [
        ({}, "name: is missing"),
        ({"name": 1}, "name: 1; allowed: text"),
        ({"name": "a\0"}, "name"),
        ({"name": "a\ud800"}, r"^name: 'a.ud800'; half of a surrogate pair"),
        ({"name": "\udfffa"}, "name"),
        ({"name": "a" * 20_001}, "name"),
        ({"name": "a", "count": 0}, "count: 0; allowed: a whole number from 1 to 9"),
        ({"name": "a", "count": 1.5}, "count: 1.5"),
        ({"name": "a", "count": "9" * 50}, "count"),
        ({"name": "a", "count": [1]}, "count"),
        ({"name": "a", "yes": "perhaps"}, "yes: 'perhaps'"),
        ({"name": "a", "yes": {}}, "yes"),
        ({"count": 0, "yes": 7}, "name.*; count.*; yes"),
    ],
)
def test_wrong_values_are_named(values, says):
    with pytest.raises(ParameterError, match=says):
        read_fields(FIELDS, values)


def test_where_an_answer_is_asked_for_an_empty_one_is_none():
    asked = (Field("yes", bool, REQUIRED, "yes or no: a matter of consequence"),)

    for values in ({}, {"yes": None}, {"yes": ""}, {"yes": " "}):
        with pytest.raises(ParameterError, match=r"^yes: is missing; yes or no"):
            read_fields(asked, values)
    assert read_fields(asked, {"yes": "no"}) == {"yes": False}
    pattern = schema(asked)["properties"]["yes"]["pattern"]
    assert re.search(pattern, "No") and not re.search(pattern, " ")


def test_unknown_names_are_refused_where_only_those_of_the_table_are_taken():
    with pytest.raises(ParameterError, match=r"^'cuont', '.*ud800': there is no such field; there are name, count, yes; yes: 7"):
        read_fields(FIELDS, {"name": "a", "cuont": 3, "\ud800": 1, "yes": 7}, only_these=True)
    with pytest.raises(ParameterError, match=r"and 90 more: there is no such field"):
        read_fields(FIELDS, {"name": "a", **{f"x{number}": 1 for number in range(100)}}, only_these=True)
    assert schema(FIELDS, only_these=True)["additionalProperties"] is False and "additionalProperties" not in schema(FIELDS)


def test_the_schema_says_the_same():
    shown = schema(FIELDS)

    count = shown["properties"]["count"]
    assert shown["required"] == ["name"]
    assert count["type"] == ["integer", "boolean", "string", "null"] and (count["minimum"], count["maximum"], count["default"]) == (1, 9, 1)
    assert shown["properties"]["name"]["type"] == ["string"]


@pytest.mark.parametrize(
    "name, texts, others",
    [("count", ["7", " +7 ", "-7", "1_0"], ["", "x", "1.5", "7x"]), ("yes", ["YES", "off", "", " 1"], ["maybe", "yess"])],
)
def test_the_schema_s_patterns_are_what_texts_are_taken(name, texts, others):
    pattern = schema(FIELDS)["properties"][name]["pattern"]

    assert all(re.search(pattern, text) for text in texts) and not any(re.search(pattern, text) for text in others)
    for text in others:
        with pytest.raises(ParameterError, match=name):
            read_fields(FIELDS, {"name": "a", name: text})


@pytest.mark.parametrize("text", ["N13_L8", " N13_L8 ", "he_seal_ckks_config_N13_L8.json"])
def test_parameters_have_their_historical_name_too(text):
    params = model_fields.parameters(text)

    assert params.name == "N13_L8" and model_fields.parameter_file(params) == "he_seal_ckks_config_N13_L8.json"


@pytest.mark.parametrize("text", ["", "auto", "N10", "conf/N13_L8.json", "/etc/hostname", "{", '{"a": 1}', "{}"])
def test_other_parameters_are_refused(text):
    with pytest.raises(ParameterError):
        model_fields.parameters(text)


def test_weak_parameters_are_refused():
    with pytest.raises(SecurityError):
        model_fields.parameters('{"poly_modulus_degree": 1024, "coeff_modulus": [40], "security_level": 0}')
