"""An invitation is one word, and whatever is not a whole one is refused in one line that keeps its secrets."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.errors import FormatError
from device_profiles.invitation import Invitation, decode_invitation

_SECRET = "c2VjcmV0"
_INVITATION = Invitation(
    name="kitchen-pi",
    address="fleet.example:9092",
    ca="-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    key=f"-----BEGIN PRIVATE KEY-----\n{_SECRET}\n-----END PRIVATE KEY-----\n",
    server_key="-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n",
)


def _word(**changed: object) -> str:
    document = msgspec.to_builtins(_INVITATION) | changed
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def test_a_word_is_read_back_whatever_a_terminal_put_into_it() -> None:
    word = _INVITATION.encoded()
    assert word.replace("-", "").replace("_", "").isalnum()
    assert decode_invitation(word) == _INVITATION
    assert decode_invitation(f"  {word[:40]}\n  {word[40:]}\r\n") == _INVITATION
    assert decode_invitation(_word()) == _INVITATION  # with its padding


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": 2}, "of version 2, this release reads version 1; install"),
        ({"name": "../other"}, "name: "),
        ({"name": ""}, "name: "),
        ({"address": "fleet.example"}, "address: "),
        ({"ca": "AA=="}, "ca: "),
        ({"key": _SECRET}, "key: "),
        ({"server_key": 1}, "server_key: "),
        ({"colour": "red"}, "colour: is not known here"),
    ],
)
def test_a_document_that_is_no_invitation_is_refused_by_its_field(changed: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=r"^--invite: ") as caught:
        decode_invitation(_word(**changed))
    assert message in str(caught.value)
    assert _SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200) | st.integers(1, len(_INVITATION.encoded()) - 1).map(_INVITATION.encoded().__getitem__))
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(FormatError, match=r"^--invite: .*paste the whole line"):
        decode_invitation(word)


@given(st.integers(0, len(_INVITATION.encoded()) - 1))
def test_a_word_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match=r"^--invite: "):
        decode_invitation(_INVITATION.encoded()[:length])
