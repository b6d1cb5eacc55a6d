"""Image files of every depth, orientation and size, as pictures and as masks."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from attention_zoo.errors import InputError
from datamodules import decoding
from datamodules.decoding import decode, decode_colours, decode_greys, decode_labels, image_size

RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
"""Sixteen bits whose highest eight are 0 to 255."""


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, bits, colour=0, before=b"", after=b""):
    """A PNG (ISO/IEC 15948) of samples (H, W) or (H, W, C), written here so that no library scales them."""
    samples = np.asarray(samples)
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if bits == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        planes = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(planes.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = before + chunk(b"IDAT", zlib.compress(lines)) + after
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def saved(folder, image, name, **options):
    path = folder / name
    image.save(path, **options)
    return str(path)


def written(folder, content, name="image.png"):
    (folder / name).write_bytes(content)
    return str(folder / name)


@pytest.mark.parametrize("kind", ["png", "tif", "big-endian tif", "pgm"])
def test_greys_of_16_bits_are_scaled_by_their_range(tmp_path, kind):
    image = Image.fromarray(RAMP)
    if kind == "big-endian tif":
        image = Image.fromarray(RAMP.astype(">u2"))
    path = saved(tmp_path, image, f"image.{kind.rpartition(' ')[2]}")
    if kind == "pgm":
        path = written(tmp_path, b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes(), "image.pgm")
    assert decode(path).tolist() == [np.arange(256).reshape(16, 16).tolist()] * 3


def test_colours_of_16_bits_are_scaled_as_greys_are(tmp_path):
    path = written(tmp_path, png(np.stack([RAMP, RAMP.T, RAMP], -1), 16, colour=2))
    wanted = np.stack([RAMP, RAMP.T, RAMP]) >> 8
    assert decode(path).tolist() == wanted.tolist()
    assert decode(written(tmp_path, png(RAMP, 16))).tolist() == (np.stack([RAMP] * 3) >> 8).tolist()
    with pytest.raises(InputError, match=r"image.png: a mask of colours has 8 bits"):
        decode_colours(written(tmp_path, png(np.stack([RAMP] * 3, -1), 16, colour=2)))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_samples_without_a_range_are_refused_by_name(tmp_path, kind):
    path = saved(tmp_path, Image.fromarray(RAMP.astype(kind)), "image.tif")
    with pytest.raises(InputError, match=r"^cannot read image .*image.tif: its samples are .* no range is known"):
        decode(path)
    with pytest.raises(InputError, match=r"^cannot read image .*image.tif: a mask of indices"):
        decode_labels(path)


def test_signed_samples_of_8_bits_are_refused_too(tmp_path):
    path = str(tmp_path / "image.tif")
    Image.fromarray(np.array([[255, 3, 100]], dtype=np.uint8)).save(path, tiffinfo={339: 2})  # -1, 3, 100
    for read in (decode, decode_labels, decode_greys, decode_colours):
        with pytest.raises(InputError, match=r"^cannot read image .*image.tif: .* 8 (signed )?bits"):
            read(path)


def test_greys_of_a_file_whose_0_is_white_are_those_that_are_seen(tmp_path):
    path = str(tmp_path / "image.tif")
    Image.fromarray(np.array([[0, 127, 255]], dtype=np.uint8)).save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    assert decode(path)[0].tolist() == decode_greys(path).tolist() == [[0, 127, 255]]
    assert decode_labels(path).tolist() == [[255, 128, 0]]  # as stored


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("LA", (70, 70, 70)), ("P", (70, 71, 72)), ("RGBA", (70, 71, 72)), ("1", (255, 255, 255)), ("PA", (70, 71, 72))],
)
def test_transparency_is_left_out(tmp_path, recwarn, mode, colour):
    if mode == "1":
        image = Image.new("1", (5, 4), 1)
    elif mode == "P":
        image = Image.new("RGB", (5, 4), colour).convert("P", palette=Image.Palette.ADAPTIVE)
        image.info["transparency"] = bytes([9])
    else:
        image = Image.new("RGBA", (5, 4), (*colour, 9)).convert("LA" if mode == "LA" else "RGBA")
    path = saved(tmp_path, image, "image.png")
    assert decode(path)[:, 0, 0].tolist() == list(colour)
    assert decode(path).shape == (3, 4, 5)
    assert not recwarn.list


@given(bits=st.sampled_from([1, 2, 4, 8, 16]), data=st.data())
@settings(deadline=None, max_examples=40)
def test_samples_of_a_grey_mask_are_its_indices(tmp_path_factory, bits, data):
    shape = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
    samples = data.draw(arrays.arrays(np.int64, shape, elements=st.integers(0, 2**bits - 1)))
    path = written(tmp_path_factory.getbasetemp(), png(samples, bits))
    assert decode_labels(path).tolist() == samples.tolist()
    assert decode_labels(path).dtype == (torch.int32 if bits == 16 else torch.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indices_of_a_palette_are_as_stored(tmp_path, bits):
    samples = np.arange(2**bits).repeat(3).reshape(-1, 3)
    colours = chunk(b"PLTE", bytes(range(7, 7 + 3)) * 2**bits)
    path = written(tmp_path, png(samples, bits, colour=3, before=colours))
    assert decode_labels(path).tolist() == samples.tolist()


@pytest.mark.parametrize(("maxval", "values"), [(3, [0, 1, 2, 3]), (255, [0, 1, 254, 255]), (300, [0, 1, 255, 300])])
@pytest.mark.parametrize("plain", [True, False])
def test_a_pgm_is_not_scaled_to_its_range(tmp_path, maxval, values, plain):
    head = f"P{2 if plain else 5} 4 1 {maxval}\n".encode()
    binary = np.array(values, ">u2" if maxval > 255 else "u1").tobytes()
    path = written(tmp_path, head + (" ".join(map(str, values)).encode() if plain else binary), "mask.pgm")
    assert decode_labels(path).tolist() == [values]


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_tiff_whose_white_is_zero(tmp_path, bits):
    stored = np.array([[0, 1, 1, 0, 1, 0, 0, 1]]) * (2**bits - 1)
    packed = np.packbits(stored > 0) if bits == 1 else stored.astype(f"<u{bits // 8}")
    entries = [(256, 8), (257, 1), (258, bits), (259, 1), (262, 0), (273, 8 + 2 + 12 * 9 + 4), (277, 1)]
    entries += [(278, 1), (279, packed.nbytes)]
    directory = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + packed.tobytes()
    path = written(tmp_path, content, "mask.tif")
    assert decode_labels(path).tolist() == stored.tolist()
    assert decode(path)[0].tolist() == (255 - 255 * (stored > 0)).tolist()


def test_a_mask_of_colours_is_no_mask_of_indices(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (3, 3)), "mask.png")
    with pytest.raises(InputError, match="a mask of indices has one channel of numbers .L or P., not RGB"):
        decode_labels(path)


def test_codes_of_grey_levels(tmp_path):
    codes = np.array([[0, 128, 255]])
    assert decode_greys(written(tmp_path, png(codes, 8))).tolist() == codes.tolist()
    assert decode_greys(written(tmp_path, png(codes, 16))).tolist() == codes.tolist()
    assert decode_greys(written(tmp_path, png([[0, 300]], 16))).tolist() == [[0, 300]]
    assert decode_greys(written(tmp_path, png([[0, 1]], 1))).tolist() == [[0, 255]]
    assert decode_greys(written(tmp_path, png([[0, 3]], 2))).tolist() == [[0, 3]]
    assert decode_greys(written(tmp_path, png(np.stack([codes] * 3, -1), 8, colour=2))).tolist() == codes.tolist()
    black_and_white = chunk(b"PLTE", bytes([0] * 3 + [255] * 3))
    assert decode_greys(written(tmp_path, png([[0, 1]], 1, 3, black_and_white))).tolist() == [[0, 255]]
    coloured = chunk(b"PLTE", bytes([0, 0, 0, 128, 0, 0]))
    assert decode_greys(written(tmp_path, png([[0, 1]], 8, 3, coloured))).tolist() == [[0, 1]]
    with pytest.raises(InputError, match="has no colours"):
        decode_greys(written(tmp_path, png([[[0, 255, 0]]], 8, colour=2)))


ORIENTATIONS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_every_orientation_is_made_upright_once(tmp_path, orientation, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(pixels), f"image.{suffix}", exif=exif, **options)
    flat = saved(tmp_path, Image.fromarray(pixels), f"flat.{suffix}", **options)
    upright = ORIENTATIONS[orientation](decode(flat).permute(1, 2, 0).numpy())
    assert decode(path).permute(1, 2, 0).tolist() == upright.tolist()
    assert image_size(path) == upright.shape[:2]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_masks_are_made_upright_wherever_a_png_says_it(tmp_path, orientation, place):
    samples = np.arange(6).reshape(2, 3)
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0)
    path = written(tmp_path, png(samples, 16, **{place: chunk(b"eXIf", exif)}))
    upright = ORIENTATIONS[orientation](samples)
    assert decode_labels(path).tolist() == decode_greys(path).tolist() == upright.tolist()
    assert image_size(path) == upright.shape


def test_broken_exif_says_nothing(tmp_path):
    path = written(tmp_path, png([[1, 2]], 8, before=chunk(b"eXIf", b"MM\0*\xff\xff\xff\xffno")))
    assert decode_labels(path).tolist() == [[1, 2]] and image_size(path) == (1, 2)


@pytest.mark.parametrize("side", [13_000, 2**31 - 1])
def test_an_image_that_declares_too_many_pixels_is_never_decoded(tmp_path, monkeypatch, recwarn, side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = written(tmp_path, b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    said = f"^cannot read image {path}: it has {side} x {side} pixels, more than 100,000,000; .*{decoding.RAISED}"
    for read in (decode, decode_labels, decode_greys, decode_colours, image_size):
        with pytest.raises(InputError, match=said):
            read(path)
    assert not recwarn.list and Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv(decoding.RAISED, str(2**63))
    with pytest.raises(InputError, match=f"{decoding.RAISED} must be a positive whole number"):
        image_size(path)
    monkeypatch.setenv(decoding.RAISED, "169000000")
    if side == 13_000:
        assert image_size(path) == (side, side)


def test_a_line_is_no_image(tmp_path):
    path = written(tmp_path, png(np.zeros((1, 1001), int), 1))
    with pytest.raises(InputError, match="it has 1001 x 1 pixels, one side over 1,000 times the other"):
        image_size(path)
    assert image_size(written(tmp_path, png(np.zeros((1, 1000), int), 1))) == (1, 1000)


@pytest.mark.parametrize("read", [decode, decode_labels, decode_greys, decode_colours, image_size])
def test_what_is_no_regular_file_is_never_opened(tmp_path, read):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "fifo.png", tmp_path / "folder.png", "/dev/zero"):
        with pytest.raises(InputError, match=rf"^cannot read image {path}: it is (no regular file|a folder)$"):
            read(str(path))


def test_formats_that_start_programs_are_not_read(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "EPS")
    with pytest.raises(InputError, match="not an image of a known format"):
        decode(written(tmp_path, buffer.getvalue()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpeg", "tiff", "bmp", "gif", "webp", "ppm"])
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_changed_bytes_give_an_image_or_one_line(tmp_path_factory, suffix, data):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix, **({} if suffix in ("bmp", "gif", "ppm") else {"exif": exif}))
    content = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, min(len(content), 150) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = written(tmp_path_factory.getbasetemp(), bytes(content), f"image.{suffix}")
    for read in (decode, decode_labels, decode_greys, decode_colours, image_size):
        try:
            found = read(path)
        except InputError as error:
            assert str(error).startswith(f"cannot read image {path}: ") and "\n" not in str(error)
        else:
            assert read is image_size or found.shape[-2:] == image_size(path)
