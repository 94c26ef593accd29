"""Photos of every kind give the same RGB; whatever is wrong with one is said by name."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from partclipseg.data import pixels
from partclipseg.data.photo import PhotoError, describe_unread, find_photos, read_photo, unread_pictures
from partclipseg.errors import UsageError

WIDTH, HEIGHT = 6, 4


def colours() -> np.ndarray:
    """uint8 [4, 6, 3] in which no two pixels and no two channels are alike."""
    values = np.arange(WIDTH * HEIGHT * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    return values * 3


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


# -- what can be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file", "image", "array"])
def test_every_source_gives_the_same_pixels(kind, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(colours()).save(path)
    with path.open("rb") as file:
        source = {
            "path": path,
            "text": str(path),
            "bytes": path.read_bytes(),
            "file": file,
            "image": Image.open(path),
            "array": colours(),
        }[kind]
        photo = read_photo(source)
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, colours())


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation, turn, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(Image.fromarray(colours()), form, exif=exif, **options)
    assert np.array_equal(read_photo(content), turn(colours()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_leaves_the_photo_as_it_lies():
    content = encoded(Image.fromarray(colours()), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(read_photo(content), colours())


def grey_ramp() -> np.ndarray:
    return np.array([[0, 1, 100], [128, 254, 255]], dtype=np.uint8)


GREYS = {
    "L": lambda: Image.fromarray(grey_ramp()),
    "LA": lambda: Image.merge("LA", [Image.fromarray(grey_ramp()), Image.new("L", (3, 2), 255)]),
    "I;16": lambda: Image.fromarray(grey_ramp().astype(np.uint16) * 257),
    "I": lambda: Image.fromarray(grey_ramp().astype(np.int32) * 257),
    "F unit": lambda: Image.fromarray((grey_ramp() / 255).astype(np.float32)),
    "F bytes": lambda: Image.fromarray(grey_ramp().astype(np.float32)),
}


@pytest.mark.parametrize("mode", GREYS)
def test_grey_of_any_depth_is_scaled_not_clipped(mode):
    photo = read_photo(GREYS[mode]())
    assert photo.shape == (2, 3, 3)
    for channel in range(3):
        assert np.array_equal(photo[:, :, channel], grey_ramp())


@pytest.mark.parametrize(("form", "byte_order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bit_files(form, byte_order):
    image = Image.fromarray((grey_ramp().astype(np.uint16) * 257).astype(byte_order))
    assert np.array_equal(read_photo(encoded(image, form))[:, :, 0], grey_ramp())


def wide_png(values: np.ndarray, significant: int | None = None) -> bytes:
    """A PNG of 16-bit grey; `significant` is what its chunk sBIT says."""
    content = encoded(Image.fromarray(values.astype(np.uint16)))
    if significant is None:
        return content
    chunk = b"sBIT" + bytes([significant])
    return content[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def twelve_bit_tiff(values: np.ndarray) -> bytes:
    """A TIFF of one row of packed 12-bit samples, an even number of them."""
    packed = bytearray()
    for first, second in values.reshape(-1, 2).tolist():
        packed += bytes([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    tags = [
        (256, values.size),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, len(packed)),
    ]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + table + bytes(4)


def tiff(values: np.ndarray, **tags: object) -> bytes:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    numbers = {"maximum": 281, "float_maximum": 341, "white": 50717}
    directory = ImageFileDirectory_v2()
    for name, value in tags.items():
        directory.tagtype[numbers[name]] = 12 if name == "float_maximum" else 4
        directory[numbers[name]] = value
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=directory)


RAMP12 = np.array([[0, 1, 819, 2047, 4000, 4095]])
BRIGHT = [0, 0, 51, 127, 249, 255]
DARK = [0, 0, 3, 8, 16, 16]


@pytest.mark.parametrize(
    ("source", "expected", "warned"),
    [
        (lambda: wide_png(RAMP12), DARK, "its values end at 4,095, below a sixteenth of the range 0 to 65,535"),
        (lambda: wide_png(RAMP12, 12), BRIGHT, None),
        (lambda: wide_png(RAMP12 // 4, 10), BRIGHT, None),
        (lambda: wide_png(RAMP12 * 16, 12), BRIGHT, None),  # brought to 16 bits, as the standard says
        (lambda: wide_png(RAMP12 // 64 * 16, 12), [0, 0, 0, 2, 4, 4], "1,008"),  # so, and dark
        (lambda: wide_png(RAMP12, 16), DARK, "4,095"),
        (lambda: twelve_bit_tiff(RAMP12), BRIGHT, None),
        (lambda: twelve_bit_tiff(RAMP12 // 32), [0, 0, 2, 4, 8, 8], "127, below a sixteenth of the range 0 to 4,095"),
        (lambda: tiff(RAMP12.astype(np.uint16), maximum=4095), BRIGHT, None),
        (lambda: tiff(RAMP12.astype(np.uint16), white=4095), BRIGHT, None),
        (lambda: tiff(RAMP12.astype(np.uint16), maximum=100), DARK, "4,095"),  # which cannot be
        (lambda: tiff(RAMP12.astype(np.uint16), maximum=65535), DARK, "4,095"),
        (lambda: tiff(RAMP12.astype(np.int32)), DARK, "4,095"),
        (lambda: tiff(RAMP12.astype(np.int32), maximum=4095), BRIGHT, None),
        (lambda: tiff((RAMP12 * 16).astype(np.int32), maximum=2**31 - 1), BRIGHT, None),  # the type's, not the photo's
        (lambda: tiff((RAMP12 / 4095).astype(np.float32)), BRIGHT, None),
        (lambda: tiff((RAMP12 / 4095 * 255).astype(np.float32)), BRIGHT, None),
        (
            lambda: tiff((RAMP12 / 4095 * 8).astype(np.float32)),
            [0, 0, 2, 4, 8, 8],
            "values end at 8, below a sixteenth",
        ),
        (lambda: tiff((RAMP12 / 4095 * 8).astype(np.float32), float_maximum=8.0), BRIGHT, None),
        (lambda: tiff((RAMP12 / 4095 * 0.05).astype(np.float32)), [0, 0, 3, 6, 12, 13], "values end at 0.05"),
        (lambda: tiff((RAMP12 * 2.0).astype(np.float32)), BRIGHT, None),  # beyond 255: stretched
        (lambda: tiff(np.zeros((1, 6), np.uint16)), [0] * 6, None),  # black in any range
        (
            lambda: encoded(Image.fromarray(RAMP12.astype(np.uint8) % 4)),
            [0, 1, 3, 3, 0, 3],
            None,
        ),  # a dark photo of 8 bits
    ],
)
def test_the_range_is_what_the_file_says_and_dark_photos_are_named(source, expected, warned, tmp_path, caplog):
    path = tmp_path / "cells.img"
    path.write_bytes(source())
    # One level: 255 is no multiple of these ranges.
    assert np.abs(read_photo(path)[0, :, 0].astype(int) - expected).max() <= 1
    if warned is None:
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert str(path) in message
        assert warned in message
        assert "scale them to the whole range" in message


def test_wide_colours_that_are_nearly_black_are_named(caplog):
    def png(values: np.ndarray) -> bytes:
        """A PNG of 16-bit colours, which Pillow does not write."""

        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
        parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    values = np.arange(12).reshape(2, 2, 3) * 90
    read_photo(png(values))
    assert "the given bytes: its values end at 3, below a sixteenth" in caplog.text
    caplog.clear()
    assert np.array_equal(read_photo(png(values * 64)), values * 64 >> 8)
    assert not caplog.messages


def test_wide_values_beyond_the_usual_ranges_are_stretched():
    values = np.array([[-1000, 0, 1000]], dtype=np.int32)
    assert read_photo(Image.fromarray(values))[0, :, 0].tolist() == [0, 128, 255]
    assert read_photo(Image.fromarray(values.astype(np.float32)))[0, :, 0].tolist() == [0, 128, 255]


def test_constant_wide_values_give_a_plain_photo():
    assert read_photo(Image.fromarray(np.full((2, 2), -5, dtype=np.int32))).tolist() == [[[0] * 3] * 2] * 2


def test_transparency_is_composited_on_white():
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [0, 255, 128]
    expected = [[[255, 255, 255], [200, 0, 0], [227, 127, 127]]]
    for source in (rgba, encoded(Image.fromarray(rgba))):
        # One grey level: compositing rounds.
        assert np.abs(read_photo(source).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 255), (np.uint16, 65535)], ids=["8 bits", "16 bits"])
def test_tiff_whose_zero_is_white(dtype, high, caplog):
    """The values stand in the file as they are; 0 means white and the greatest value black."""
    photo = Image.fromarray(np.array([[0, high, high // 5]], dtype))
    stored = bytearray(encoded(photo, "TIFF"))
    tag = stored.index(struct.pack("<HHI", 262, 3, 1))
    stored[tag + 8 : tag + 10] = struct.pack("<H", 0)
    np.testing.assert_array_equal(read_photo(bytes(stored))[0, :, 0], [255, 0, 204])
    assert not caplog.messages


@pytest.mark.parametrize(("bits", "row"), [(8, b"\1\0"), (16, b"\0\1\0\0")])
def test_a_transparent_grey_value_is_white_at_every_depth(bits, row):
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0),
        b"tRNS": struct.pack(">H", 1),
        b"IDAT": zlib.compress(b"\0" + row),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    np.testing.assert_array_equal(read_photo(content)[0, :, 0], [255, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("alpha", [0, 1, 255])
def test_a_photo_that_is_transparent_everywhere_is_named(mode, alpha, caplog):
    photo = Image.fromarray(colours()).convert(mode)
    photo.putalpha(alpha)
    read = read_photo(encoded(photo))
    assert (read == 255).all() == (alpha == 0)
    expected = ["the given bytes: it is transparent everywhere, so it is read as white: save it without transparency"]
    assert caplog.messages == expected * (alpha == 0)


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read_photo(encoded(image)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert read_photo(encoded(image, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_one_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert read_photo(encoded(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_jpeg():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    # JPEG is lossy: 8 grey levels are far from any other pure colour.
    assert np.abs(read_photo(encoded(red, "JPEG"))[8, 8].astype(int) - [255, 0, 0]).max() <= 8


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_photo(content)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
def test_array_shapes(shape):
    assert read_photo(np.full(shape, 255, dtype=np.uint8)).tolist() == [[[255] * 3] * 3] * 2


def test_one_pixel():
    assert read_photo(np.zeros((1, 1, 3), dtype=np.uint8)).shape == (1, 1, 3)


# -- what cannot ----------------------------------------------------------------------------------------------


def huge_png() -> bytes:
    """A header of 20000x20000 pixels with nothing behind it: decoding would fail, the limit must come first."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))

BAD_FILES = {
    "empty.jpg": (b"", "the file is empty: replace it"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated or damaged"),
    "half.png": (PNG[: len(PNG) // 2], "truncated or damaged"),
    "head.jpg": (JPEG[:30], "truncated or damaged"),
    "notes.jpg": (b"these are my notes", "not a photo in a known format ("),
    "icon.png": (encoded(Image.new("RGB", (16, 16)), "ICO"), "PNG, PPM, TGA, TIFF, WEBP): convert it to JPEG or PNG"),
    "figure.jpg": (encoded(Image.new("RGB", (16, 16)), "EPS"), "PNG, PPM, TGA, TIFF, WEBP): convert it to JPEG or PNG"),
    "huge.png": (huge_png(), "too many pixels"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_with_the_reason(name, tmp_path):
    content, reason = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("form", ["ICO", "EPS", "ICNS"])
def test_readers_of_other_formats_are_never_begun(form, monkeypatch):
    """Some decode in their constructor, before any limit, and EPS starts another program."""
    content = encoded(Image.new("RGB", (16, 16)), form)
    _, accept = Image.OPEN[form]
    monkeypatch.setitem(Image.OPEN, form, (lambda *_: pytest.fail(f"{form} was begun"), accept))
    with pytest.raises(PhotoError, match=r"not a photo in a known format"):
        read_photo(content)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "the given bytes: empty"),
        (io.StringIO("text"), "opened as text: open it in binary mode"),
        (17, "cannot be read from a int"),
        (None, "cannot be read from a NoneType"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "channels last"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "is not a photo"),
        (np.zeros((8, 8, 3), dtype=np.float32), "float32 is not a photo: scale its values"),
        (Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "not numbers"),
        (Image.new("RGB", (0, 5)), "no pixels"),
    ],
)
def test_bad_sources(source, words):
    with pytest.raises(PhotoError, match=words):
        read_photo(source)


@pytest.mark.parametrize(
    "text", ["a" * 300 + ".jpg", "a" * 100_000, "a\0b.jpg", "dog: ear\ncat: tail", "", "\udc80.jpg"]
)
def test_text_that_no_path_can_be_is_no_photo(text):
    with pytest.raises(PhotoError, match="no such file"):
        read_photo(text)
    for pattern in (text, f"{text}*"):
        with pytest.raises(UsageError, match=r"no such file or folder|no photo matches"):
            find_photos([pattern])
        assert unread_pictures([pattern]) == []


def test_heic_is_read(tmp_path, monkeypatch):
    import pillow_heif as heif

    path = tmp_path / "phone.HEIC"
    image = Image.new("RGB", (64, 48), (200, 30, 40))
    heif.from_pillow(image).save(path, quality=95)
    assert find_photos([tmp_path]) == [path]
    assert unread_pictures([tmp_path]) == []
    photo = read_photo(path)
    assert photo.shape == (48, 64, 3)
    assert np.abs(photo[20, 20].astype(int) - [200, 30, 40]).max() <= 8  # HEIC is lossy
    # Without the package: it is passed over in a folder, and refused by name with the remedy.
    for function in (pixels.has_heif, pixels.photo_formats):
        function.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    try:
        with pytest.raises(PhotoError, match=r"phone\.HEIC: a HEIC photo: pip install pillow-heif"):
            read_photo(path)
        with pytest.raises(UsageError, match=r"no photos in this folder, but 1 picture of a kind"):
            find_photos([tmp_path])
        assert unread_pictures([tmp_path]) == unread_pictures([tmp_path / "*"]) == [path]
    finally:
        for function in (pixels.has_heif, pixels.photo_formats):
            function.cache_clear()


def test_unread_pictures_are_counted_and_named(tmp_path):
    for name in ("a.jpg", "b.CR2", "c.psd", "notes.txt", ".d.psd", *(f"e{index}.nef" for index in range(4))):
        (tmp_path / name).write_bytes(b"x")
    sentence = describe_unread(unread_pictures([tmp_path, tmp_path / "a.jpg"]))
    assert sentence == (
        "6 pictures of a kind that is not read here (4 .nef, 1 .cr2, 1 .psd): "
        "b.CR2, c.psd, e0.nef, e1.nef, e2.nef and 1 more: "
        "convert .cr2, .psd, .nef to JPEG or PNG"
    )
    assert "for .heic pip install pillow-heif" in describe_unread([tmp_path / "x.heic"])
    assert describe_unread([tmp_path / "IMG_1.MOV", tmp_path / "b.psd"]) == (
        "2 files of a kind that is not read here (1 .mov, 1 .psd): IMG_1.MOV, b.psd: convert .psd to JPEG or PNG; "
        "save frames of .mov as JPEG or PNG"
    )
    assert describe_unread([]) is None


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(PhotoError, match=r"nowhere\.jpg: no such file"):
        read_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(PhotoError, match="a folder, not a photo"):
        read_photo(tmp_path)
    with pytest.raises(PhotoError, match="not a regular file"):
        read_photo("/dev/null")


def test_the_limit_is_checked_before_decoding(tmp_path):
    path = tmp_path / "big.png"
    path.write_bytes(PNG[:100])  # cannot be decoded: only the header is there
    with pytest.raises(PhotoError, match=r"big\.png: 64x64 is 4,096 pixels, more than the limit of 4,095"):
        read_photo(path, max_pixels=4095)
    assert read_photo(PNG, max_pixels=4096).shape == (64, 64, 3)


# -- where photos are -----------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path):
    for name in ("b.JPG", "a.png", "._a.png", ".hidden.jpg", "notes.txt", "sub/c.webp", "odd[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.png", "b.JPG", "odd[1].jpg"]),
        ("*.png", ["a.png"]),
        ("**/*", ["a.png", "b.JPG", "odd[1].jpg", "sub/c.webp"]),
        ("notes.txt", ["notes.txt"]),  # named by hand: the reader will say what it is
        ("odd[1].jpg", ["odd[1].jpg"]),  # a file's name goes before a pattern's meaning
    ],
)
def test_files_folders_and_patterns(album, pattern, expected):
    found = find_photos([album / pattern if pattern else album])
    assert [path.relative_to(album).as_posix() for path in found] == expected


def test_photos_named_twice_come_once(album):
    assert len(find_photos([album / "a.png", album, str(album / "*.png")])) == 3


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("*.tiff", "no photo matches this pattern"),
        ("nowhere", "no such file or folder"),
        ("folder.jpg", "no photos in this folder"),
    ],
)
def test_nothing_found_names_the_pattern(album, pattern, words):
    with pytest.raises(UsageError, match=words) as caught:
        find_photos([album, album / pattern])
    assert str(album / pattern) in str(caught.value)
