"""Protobuf classes built at run time from dataclasses, so that one wheel loads on protobuf 3.19 to 7.

Code that protoc generates refuses runtimes older than its own (and some that are newer), so there is none here: each field of a message
says its number and wire type with `wire`, and `proto_classes` makes the descriptors. he_nn.proto is the same for readers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "he_nn"
Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": Proto.TYPE_STRING,
    "bytes": Proto.TYPE_BYTES,
    "uint32": Proto.TYPE_UINT32,
    "uint64": Proto.TYPE_UINT64,
    "double": Proto.TYPE_DOUBLE,
}


@dataclass(frozen=True)
class Wire:
    """How one field travels: its number, its type (as .proto files write it), and the most characters, bytes or entries allowed."""

    number: int
    type: str
    most: int

    @property
    def repeated(self) -> bool:
        """True for a list of values."""
        return self.type.startswith("repeated ")

    @property
    def map_types(self) -> tuple[str, ...]:
        """The key and value types of a map, () for anything else."""
        return tuple(self.type[4:-1].split(", ")) if self.type.startswith("map<") else ()

    @property
    def element(self) -> str:
        """The type of the value, or of one of the values of a list."""
        return self.type[len("repeated ") :] if self.repeated else self.type


def wire(number: int, type: str, most: int = 0) -> dict[str, Wire]:
    """The metadata of a dataclass field that travels; `most` bounds strings, bytes, lists and maps (and their strings)."""
    return {"wire": Wire(number, type, most)}


def wires(message: type) -> dict[str, Wire]:
    """Field name -> Wire of a message class, in order."""
    return {field.name: field.metadata["wire"] for field in dataclasses.fields(message)}


def proto_classes(bodies: Mapping[type, int]) -> dict[str, Any]:
    """Name -> protobuf class of every message in `bodies` (class -> its number in the oneof of Frame), and of Frame itself."""
    file = _file_of("he_nn", list(bodies))
    frame = file.message_type.add(name="Frame")
    frame.field.add(name="version", number=1, type=Proto.TYPE_UINT32, label=Proto.LABEL_OPTIONAL)
    frame.oneof_decl.add(name="body")
    for message, number in bodies.items():
        field = frame.field.add(name=snake(message.__name__), number=number, label=Proto.LABEL_OPTIONAL, oneof_index=0)
        field.type, field.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{message.__name__}"
    return _classes_in(file)


def message_classes(name: str, messages: Sequence[type]) -> dict[str, Any]:
    """Name -> protobuf class of each message, as of a file NAME.proto with these alone."""
    return _classes_in(_file_of(name, messages))


def _file_of(name: str, messages: Sequence[type]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=PACKAGE, syntax="proto3")
    for message in messages:
        _add_message(file.message_type.add(name=message.__name__), wires(message))
    return file


def _classes_in(file: Any) -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    make = _class_maker(pool)
    names = [message.name for message in file.message_type]
    return {name: make(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}


def snake(name: str) -> str:
    """HelloReply -> hello_reply."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _class_maker(pool: Any) -> Callable[[Any], Any]:
    newer = getattr(message_factory, "GetMessageClass", None)  # protobuf 4.22 and up; the other way left with protobuf 5
    return newer or message_factory.MessageFactory(pool).GetPrototype  # type: ignore[attr-defined]


def _add_message(proto: Any, fields: Mapping[str, Wire]) -> None:
    singular = []
    for name, one in fields.items():
        field = proto.field.add(name=name, number=one.number, label=Proto.LABEL_OPTIONAL)
        if one.map_types:
            entry = f"{''.join(part.capitalize() for part in name.split('_'))}Entry"
            _add_map_entry(proto.nested_type.add(name=entry), one.map_types)
            field.label = Proto.LABEL_REPEATED
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{proto.name}.{entry}"
        elif one.repeated:
            field.label, field.type = Proto.LABEL_REPEATED, _SCALARS[one.element]
        elif one.element in _SCALARS:
            field.type = _SCALARS[one.element]
            singular.append(field)
        else:
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{one.element}"
    # `optional` of proto3: presence is told by a oneof of one field, written after the message's own.
    for field in singular:
        field.proto3_optional, field.oneof_index = True, len(proto.oneof_decl)
        proto.oneof_decl.add(name=f"_{field.name}")


def _add_map_entry(entry: Any, types: Sequence[str]) -> None:
    entry.options.map_entry = True
    for number, (name, kind) in enumerate(zip(("key", "value"), types), start=1):
        entry.field.add(name=name, number=number, type=_SCALARS[kind], label=Proto.LABEL_OPTIONAL)
