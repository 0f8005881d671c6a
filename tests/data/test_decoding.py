from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trilemma.data.decoding import DamagedImageError, adapt, check_size, decode, fit, header
from trilemma.errors import InputError


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


def test_grey_and_rgb_come_back_exactly(rgb):
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgb[0])), "a"), rgb[0])
    grey = rgb[0, :, :, :1]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey[:, :, 0])), "a"), grey)
    two = Image.fromarray(grey[:, :, 0] > 99)
    assert two.mode == "1"
    np.testing.assert_array_equal(decode(encoded(two), "a"), np.where(grey > 99, 255, 0))


def test_transparency_is_composited_over_white():
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = (0, 255, 51)  # transparent, opaque, one fifth
    out = decode(encoded(Image.fromarray(pixels)), "a")
    assert out.tolist() == [[[255, 255, 255], [200, 0, 0], [244, 204, 204]]]
    grey = decode(encoded(Image.fromarray(pixels[:, :, [0, 3]]).convert("LA")), "a")
    assert grey.tolist() == [[[255], [200], [244]]]


def test_palettes_become_rgb(rgb):
    image = Image.fromarray(rgb[0]).quantize(8)
    assert image.mode == "P"
    np.testing.assert_array_equal(decode(encoded(image), "a"), np.array(image.convert("RGB")))
    see_through = decode(encoded(image, transparency=int(np.array(image)[0, 0])), "a")
    assert see_through[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_rescaled():
    values = np.array([[0, 257, 257 * 100 + 128, 257 * 100 + 129, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(values), format), "a")[0, :, 0].tolist() == [0, 1, 100, 101, 255]


@pytest.mark.parametrize(("dtype", "word"), [(np.int32, "32-bit"), (np.float32, "floating-point")])
def test_pixels_without_a_range_are_refused(dtype, word):
    with pytest.raises(DamagedImageError, match=rf"deep.tif: .*{word}"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype=dtype)), "TIFF"), "deep.tif")


def test_a_jpeg_is_turned_upright(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(rgb[0]), "JPEG", exif=exif)
    upright = np.rot90(np.array(Image.open(io.BytesIO(data))), -1)
    np.testing.assert_array_equal(decode(data, "a"), upright)
    assert header(io.BytesIO(data), "a") == ("RGB", (10, 8))


def test_what_is_no_image_is_named(rgb):
    whole = encoded(Image.fromarray(rgb[0]))
    for data in (b"this is text", b"", whole[: len(whole) // 2]):
        with pytest.raises(DamagedImageError, match=r"^notes\.png: cannot be read as an image \(.+\)$") as caught:
            decode(data, "notes.png")
        assert "\n" not in str(caught.value)
        assert (caught.value.file, bool(caught.value.reason)) == ("notes.png", True)


def test_fit_crops_the_centre_to_the_proportions_and_resizes(rgb):
    image = Image.fromarray(rgb[0])  # 8 high, 10 wide
    assert fit(image, None) is image
    assert fit(image, (8, 10)) is image
    np.testing.assert_array_equal(np.array(fit(image, (8, 8))), rgb[0, :, 1:9])
    expected = Image.fromarray(rgb[0, 2:6]).resize((5, 2), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.array(fit(image, (2, 5))), np.array(expected))
    flat = Image.new("RGB", (37, 21), (10, 130, 250))
    assert np.unique(np.array(fit(flat, (16, 16))).reshape(-1, 3), axis=0).tolist() == [[10, 130, 250]]


def test_reduction_is_antialiased():
    stripes = np.zeros((32, 32), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = np.array(fit(Image.fromarray(stripes), (8, 8))).astype(int)
    assert np.abs(small - 127.5).max() < 40  # without a filter it would be 0 or 255


def test_arrays_are_adapted_as_files_are(rgb):
    for size, channels in [((4, 4), None), (None, 1), ((16, 12), 1), ((4, 4), 3)]:
        decoded = [decode(encoded(Image.fromarray(image)), "a", size=size, channels=channels) for image in rgb]
        np.testing.assert_array_equal(adapt(rgb, size=size, channels=channels), np.stack(decoded))
    grey = rgb[:, :, :, :1]
    np.testing.assert_array_equal(adapt(grey, channels=3), np.repeat(grey, 3, axis=3))
    assert adapt(rgb, size=(8, 10), channels=3) is rgb


def test_sizes():
    assert check_size(32) == (32, 32)
    assert check_size([64, 32]) == (64, 32)  # as YAML gives it
    assert check_size(None) is None
    for bad in (0, -3, 2.5, "32", (1, 2, 3), (0, 4)):
        with pytest.raises(InputError, match=r"data\.size"):
            check_size(bad)  # type: ignore[arg-type]
