from __future__ import annotations

import numpy as np
import pytest

from trilemma.data import open_data, parse_reference
from trilemma.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist5"}, "unknown data 'mnist5': did you mean 'mnist5k'"),
        ({"name": "no/such/folder"}, "'no/such/folder' does not exist"),
        ({"name": "set.npz"}, r"'set\.npz' does not exist"),
        ({"name": "mnist5k", "split": "tset"}, "unknown split of mnist5k 'tset': did you mean 'test'"),
        ({"name": "shapes", "split": "val"}, r"unknown split of shapes 'val': .*\(known: all, test, train\)"),
        ({"name": "mnist5k", "root": "/somewhere"}, r"data\.root: 'mnist5k' takes none"),
        ({"name": "mnist5k", "size": 0}, r"data\.size: 0"),
        ({"name": "mnist5k", "channels": 2}, r"data\.channels: 2, expected 1 \(grey\) or 3"),
    ],
)
def test_what_cannot_be_opened(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        open_data(**arguments)
    assert "\n" not in str(caught.value)


def test_size_and_channels_apply_to_a_named_source():
    digits = open_data("mnist5k", split="test", size=(14, 20), channels=3)
    assert (digits.shape, digits.name, digits.split, len(digits)) == ((3, 14, 20), "mnist5k", "test", 500)
    assert digits.fingerprint() != open_data("mnist5k", split="test").fingerprint()
    pixels = digits.batch(range(500))[0]
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_references(folder, rgb, monkeypatch):
    assert parse_reference("mnist5k:test") == ("mnist5k", "test")
    assert parse_reference("mnist5k") == ("mnist5k", "train")
    assert parse_reference("some/folder:val") == ("some/folder", "val")
    assert parse_reference("C:\\images") == ("C:\\images", "train")
    assert parse_reference("C:\\images:test") == ("C:\\images", "test")
    assert parse_reference("http://odd/path") == ("http://odd/path", "train")
    where = folder({"a.png": rgb[0]}, "odd:name")
    assert parse_reference(str(where)) == (str(where), "train")
    assert parse_reference(f"{where}:all") == (str(where), "all")
    monkeypatch.chdir(where.parent)
    assert parse_reference("odd:name") == ("odd:name", "train")
    for empty in ("", ":", "mnist5k:", ":test"):
        with pytest.raises(InputError, match="expected DATA or DATA:SPLIT"):
            parse_reference(empty)


def test_a_known_name_wins_over_a_folder(folder, rgb, monkeypatch):
    where = folder({"a.png": rgb[0]}, "shapes")
    monkeypatch.chdir(where.parent)
    assert len(open_data("shapes")) == 10_000
    assert len(open_data("./shapes")) == 1
    assert open_data("./shapes").name == "shapes"
