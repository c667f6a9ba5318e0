"""
Reference pictures: judged by their own heads, sent as the service takes them.
"""

import base64
import hashlib
import io
import pickle
import struct

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import Image, InvalidInputError
from tests.strategies import modest, png

URL = "https://example.com/hat.png?sign=secret"


def drawn(kind, width=400, height=300):
    """
    A real picture, written by Pillow.
    """
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), (200, 30, 30)).save(file, kind)
    return file.getvalue()


def jpeg(*segments):
    """
    The start of a JPEG from its segments: marker and payload.
    """
    return b"\xff\xd8" + b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload for marker, payload in segments
    )


SOF = b"\x08" + struct.pack(">HH", 300, 400) + b"\x03"
TABLES = b"\x08" + struct.pack(">HH", 8, 9)
LIMIT = 10 * 1024 * 1024


@pytest.mark.parametrize(
    "data",
    [
        drawn("PNG"),
        drawn("JPEG"),
        png(300, 750),
        png(750, 300),
        png(300, 300, padding=LIMIT - len(png(300, 300))),
        jpeg((0xE0, b"JFIF"), (0xC0, SOF)),
        jpeg((0xC2, SOF)),
        png(300, 300)[:24],
        jpeg((0xC0, SOF))[:11],
        *(jpeg((marker, SOF)) for marker in (0xC1, 0xC3, 0xC5, 0xC7, 0xC9, 0xCB, 0xCD, 0xCF)),
        *(jpeg((marker, TABLES), (0xC0, SOF)) for marker in (0xC4, 0xC8, 0xCC, 0xBF, 0xD8)),
        b"\xff\xd8\xff\xff\xff\x01\xff\xd0\xff\xd7" + jpeg((0xC0, SOF))[2:],
    ],
)
def test_a_picture_is_sent_as_bare_base64(data):
    """
    Standard, unbroken, padded, and without a prefix, which the service refuses.
    """
    image = Image.from_bytes(data)
    assert base64.b64encode(data).decode() == image.wire
    assert data == base64.b64decode(image.wire, validate=True)
    assert not image.is_url
    assert hashlib.sha256(data).hexdigest() == image.digest
    assert Image.from_bytes(bytearray(data)) == image


@pytest.mark.parametrize(
    "data, reason",
    [
        pytest.param(b"", "empty", id="B46-empty"),
        pytest.param(png(300, 300, padding=LIMIT - len(png(300, 300)) + 1), "10 MB", id="B46-large"),
        pytest.param(png(299, 400), "299 x 400", id="B46-narrow"),
        pytest.param(png(400, 299), "400 x 299", id="B46-low"),
        pytest.param(png(300, 900), "factor of 2.5", id="B46-aspect"),
        pytest.param(png(751, 300), "factor of 2.5", id="B46-just-over"),
        pytest.param(drawn("GIF"), "neither a JPEG nor a PNG", id="B46-gif"),
        pytest.param(drawn("WEBP"), "neither a JPEG nor a PNG", id="B46-webp"),
        pytest.param(b"MNG" + png(400, 300)[3:], "neither a JPEG nor a PNG", id="B46-other-magic"),
        pytest.param(png(400, 300).replace(b"IHDR", b"IEND"), "neither a JPEG nor a PNG", id="B46-no-header"),
        pytest.param(jpeg((0xC0, SOF))[:10], "neither a JPEG nor a PNG", id="B46-cut-size"),
        pytest.param(jpeg((0xE0, b"JFIF")) + b"\0" + jpeg((0xC0, SOF))[3:], "neither a JPEG nor", id="B46-no-ff"),
        pytest.param(png(300, 300)[:20], "neither a JPEG nor a PNG", id="B46-cut-png"),
        pytest.param(b"\xff\xd8\xff", "neither a JPEG nor a PNG", id="B46-cut-jpeg"),
        pytest.param(jpeg((0xC0, SOF))[:9], "neither a JPEG nor a PNG", id="B46-cut-frame"),
        pytest.param(jpeg((0xE0, b"JFIF")), "neither a JPEG nor a PNG", id="B46-no-frame"),
        pytest.param(jpeg((0xE0, b"JFIF")) + b"scan", "neither a JPEG nor a PNG", id="B46-no-marker"),
    ],
)
def test_a_picture_that_the_service_would_refuse_is_refused(data, reason):
    """
    By its head alone, whichever way it was given.
    """
    with pytest.raises(InvalidInputError, match=reason) as refused:
        Image.from_bytes(data)
    assert "image" == refused.value.field
    if data:
        with pytest.raises(InvalidInputError, match=reason):
            Image(base64.b64encode(data).decode())


@pytest.mark.parametrize(
    "wire, reason",
    [
        pytest.param("data:image/png;base64,iVBORw0KGgo=", "Image.from_bytes", id="B44"),
        pytest.param("photo.png", "Image.from_file", id="B47-name"),
        pytest.param("/home/me/photo.png", "Image.from_file", id="B47-path"),
        pytest.param("photo", "Image.from_file", id="B47-word"),
        pytest.param("ümlaut", "Image.from_file", id="B47-letters"),
        pytest.param("iVBORw0K\nGgo=", "Image.from_file", id="B47-broken-lines"),
        pytest.param("", "empty", id="B47-empty"),
        pytest.param(png(400, 300), "Image.from_bytes", id="B47-bytes"),
        pytest.param(None, "Image.from_url", id="B47-none"),
        pytest.param("https://me:pass@example.com/hat.png", "logs", id="B29"),
        pytest.param("http:hat.png", "https", id="B28"),
    ],
)
def test_what_is_neither_url_nor_base64_is_refused_with_the_way_out(wire, reason):
    """
    Paths, bytes and data: URLs each have a constructor of their own.
    """
    with pytest.raises(InvalidInputError, match=reason):
        Image(wire)


@pytest.mark.parametrize("given", ["iVBORw0KGgo=", memoryview(b"a"), None, 7])
def test_bytes_are_bytes(given):
    """
    B47: text is not taken for the picture itself.
    """
    with pytest.raises(InvalidInputError, match="must be bytes"):
        Image.from_bytes(given)


def test_a_url_is_sent_as_it_is():
    """
    Its repr and its digest leave out the query, which may be a signature.
    """
    image = Image.from_url(URL)
    assert URL == image.wire
    assert image.is_url
    assert "Image(https://example.com/hat.png)" == repr(image)
    assert hashlib.sha256(b"https://example.com/hat.png").hexdigest() == image.digest


@pytest.mark.parametrize("url", ["hat.png", "ftp://example.com/hat.png", "data:image/png;base64,AAAA", None])
def test_a_url_that_nobody_could_fetch_is_refused(url):
    """
    B28 and B44, at the constructor that is for URLs.
    """
    with pytest.raises(InvalidInputError):
        Image.from_url(url)


def test_a_file_is_read(tmp_path):
    """
    By a path of either kind.
    """
    path = tmp_path / "hat.png"
    path.write_bytes(png(400, 300))
    assert Image.from_bytes(png(400, 300)) == Image.from_file(path) == Image.from_file(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    """
    With the system's own reason.
    """
    with pytest.raises(InvalidInputError, match=r"hat\.png cannot be read: No such file"):
        Image.from_file(tmp_path / "hat.png")


def test_a_repr_shows_no_bytes():
    """
    A picture of ten megabytes is one short word in a log.
    """
    image = Image.from_bytes(png(400, 300))
    assert f"Image({len(png(400, 300))} bytes, sha256 {image.digest[:12]})" == repr(image)


def test_a_picture_is_a_value():
    """
    Equal, hashable and picklable by what it holds.
    """
    image = Image.from_bytes(png(400, 300))
    assert image == pickle.loads(pickle.dumps(image))
    assert {image} == {Image(image.wire)}


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"\xff\xd8\xff" + tail))
@modest
def test_any_bytes_are_judged_without_a_crash(data):
    """
    A picture's head is foreign data: it makes a picture or one error of ours.
    """
    try:
        image = Image.from_bytes(data)
    except InvalidInputError:
        return
    assert data == base64.b64decode(image.wire)
