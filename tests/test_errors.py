"""Errors: every message has its fields, reads like a sentence, says what to do; codes are numbers of their own."""

from __future__ import annotations

import inspect
import pickle
import re
import string

import pytest

from pvedrbdstor import errors
from pvedrbdstor.service import protocol

CLASSES = sorted(
    {
        value
        for module in (errors, protocol)
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, errors.Error) and value is not errors.Error
    },
    key=lambda cls: cls.code,
)
# What the raiser's text says to do; the class only frames it.
FRAMED = {
    "BadSize",
    "NotSupported",
    "BadConfig",
    "BadRequest",
    "BadName",
    "BadImage",
    "InvalidParams",
    "InvalidRequest",
    "ParseError",
}
ADVICE = re.compile(
    r"\b(Is|Are|Do|Use|Check|Choose|Free|Lift|List|Run|Say|Look|Try|try|repeat|Reinstall|report|Clone|Mount|Move|Shut|enable|read|copy|"
    r"undone)\b|\{remedy\}"
)


def made(cls: type[errors.Error]) -> errors.Error:
    fields = [name for _, name, _, _ in string.Formatter().parse(cls.__doc__ or "") if name]
    return cls(**{name: f"<{name}>" for name in fields})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
class TestEveryError:
    def test_its_message_has_all_its_fields_and_is_one_line(self, cls: type[errors.Error]) -> None:
        error = made(cls)
        assert all(f"<{name}>" in error.message for name in error.fields)
        assert str(error) == error.message
        assert error.message.isprintable()
        assert "  " not in error.message

    def test_its_message_begins_and_ends_like_a_sentence(self, cls: type[errors.Error]) -> None:
        text = cls.__doc__ or ""
        assert re.match(r"[A-Z'{]", text)
        assert text.endswith((".", "?")), text

    def test_its_message_says_what_to_do(self, cls: type[errors.Error]) -> None:
        assert cls.__name__ in FRAMED or ADVICE.search(cls.__doc__ or ""), cls.__doc__

    def test_a_field_that_is_forgotten_is_noticed_when_it_is_made(self, cls: type[errors.Error]) -> None:
        with pytest.raises(KeyError):
            cls()

    def test_text_in_braces_in_a_field_is_text(self, cls: type[errors.Error]) -> None:
        fields = dict.fromkeys(made(cls).fields, "{storage.__class__} %s {")
        assert "{storage.__class__} %s {" in cls(**fields).message

    def test_it_can_go_to_another_process(self, cls: type[errors.Error]) -> None:
        error = made(cls)
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.message, copy.fields) == (cls, error.message, error.fields)

    def test_its_kind_and_numbers_are_for_machines(self, cls: type[errors.Error]) -> None:
        error = made(cls)
        assert error.kind == cls.__name__
        assert error.code != errors.Error.code
        assert 64 <= error.exit_status <= 78, "exit statuses are those of sysexits.h"


def test_no_two_errors_have_the_same_code() -> None:
    codes = [cls.code for cls in CLASSES]
    assert sorted(set(codes)) == codes


def test_json_rpc_has_its_own_codes() -> None:
    rpc = {cls.__name__: cls.code for cls in CLASSES if cls.code < 0}
    assert rpc == {"ParseError": -32700, "InvalidRequest": -32600, "MethodNotFound": -32601, "InvalidParams": -32602}
