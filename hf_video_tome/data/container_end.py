"""Whether a file ends where its container does, by the sizes of what the container is made of.

FFmpeg reads a file that was cut off between two packets, or within one of Matroska, without a word. A length in
seconds or a number of frames is no evidence, as many complete files state wrong ones; a part that is not all there is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

# Lengths of a transport packet: plain, with a time stamp (m2ts), with error correction.
_TRANSPORT_PACKETS = (188, 192, 204)
_TAIL = 1 << 16


class _Element(NamedTuple):
    """A part of a container."""

    name: str
    content: int  # where its content begins
    end: int | None  # where it ends; None: after what it contains, of a length that is not stated


def missing_end(handle: BinaryIO, size: int, container: str) -> str | None:
    """Looks for evidence that a file was cut off.

    Args:
        handle: The file; its position changes.
        size: Its length in bytes.
        container: FFmpeg's name of its format.

    Returns:
        What is missing, and what says so; None if nothing is, or the format leaves no evidence.

    Examples:
        >>> import io
        >>> data = b"RIFF" + bytes(4) + b"AVI LIST" + (100).to_bytes(4, "little") + b"movi" + bytes(20)
        >>> missing_end(io.BytesIO(data), len(data), "avi")
        "its part 'LIST' reaches up to byte 120, but it has only 44"
    """
    if container in _ELEMENTS:
        return _unfinished_element(handle, size, _ELEMENTS[container])
    if container in _TAILS:
        begin = max(0, size - _TAIL)
        handle.seek(begin)
        return _TAILS[container](handle.read(size - begin))
    return None


# Containers of elements that state their lengths


def _unfinished_element(handle: BinaryIO, size: int, read: Callable[[bytes, int], _Element | None]) -> str | None:
    position = 0
    while position < size:
        handle.seek(position)
        element = read(handle.read(32), position)
        if element is None:  # something else follows, such as zeros
            return None
        if element.end is not None and element.end > size:
            return f"its part {element.name!r} reaches up to byte {element.end}, but it has only {size}"
        position = element.content if element.end is None else element.end
    return None


def _riff_chunk(head: bytes, position: int) -> _Element | None:
    if head[:1] == b"\0":  # chunks of an odd length are padded
        head, position = head[1:], position + 1
    if len(head) < 8 or head[:4] not in (b"RIFF", b"LIST", b"JUNK", b"idx1"):  # or what somebody appended
        return None
    name, length = head[:4].decode(), struct.unpack("<I", head[4:8])[0]
    # Of the length of the whole, writers disagree about what counts; the parts tell.
    if name == "RIFF":
        return _Element(name, position + 12, None)
    # A recording that went into a pipe could not go back to state its lengths.
    return None if length in (0, 0xFFFFFFFF) else _Element(name, position + 8, position + 8 + length)


_MATROSKA_NAMES = {
    0x1A45DFA3: "EBML",
    0x18538067: "Segment",
    0x114D9B74: "SeekHead",
    0x1549A966: "Info",
    0x1654AE6B: "Tracks",
    0x1941A469: "Attachments",
    0x1043A770: "Chapters",
    0x1254C367: "Tags",
    0x1C53BB6B: "Cues",
    0x1F43B675: "Cluster",
    0xE7: "Timestamp",
    0xA7: "Position",
    0xAB: "PrevSize",
    0xA3: "SimpleBlock",
    0xA0: "BlockGroup",
    0xEC: "Void",
    0xBF: "CRC-32",
}


def _matroska_element(head: bytes, position: int) -> _Element | None:
    name_length = 9 - head[0].bit_length()
    name = _MATROSKA_NAMES.get(int.from_bytes(head[:name_length], "big"))
    if name is None:
        return None
    head, position = head[name_length:], position + name_length
    size_length = 9 - head[0].bit_length() if head else 1
    if len(head) < size_length:
        return _Element(name, position, position + size_length)
    content, unknown = position + size_length, (1 << 7 * size_length) - 1
    length = int.from_bytes(head[:size_length], "big") & unknown
    return _Element(name, content, None if length == unknown else content + length)


_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _asf_object(head: bytes, position: int) -> _Element | None:
    names = {_ASF_HEADER: "Header", _ASF_DATA: "Data"}
    if head[:16] not in names or len(head) < 24:
        return None
    length = struct.unpack("<Q", head[16:24])[0]
    return None if length <= 50 else _Element(names[head[:16]], position + 24, position + length)


_MOV_BOXES = b"ftyp styp moov moof mdat sidx mfra free skip wide uuid emsg".split()


def _mov_box(head: bytes, position: int) -> _Element | None:
    if len(head) < 8:  # within a header: lengths begin with a zero, and padding is nothing else
        return _Element("box", position + 8, position + 8) if head[:1] == b"\0" and head.strip(b"\0") else None
    if head[4:8] not in _MOV_BOXES:
        return None
    name, length = head[4:8].decode(), struct.unpack(">I", head[:4])[0]
    if length == 1:
        length = int.from_bytes(head[8:16].ljust(8, b"\0"), "big")
    # A box of length 0 goes on to the end, wherever that is.
    return None if length < 8 else _Element(name, position + 8, position + length)


def _flv_tag(head: bytes, position: int) -> _Element | None:
    if position == 0:
        return _Element("header", 9, 9) if head[:3] == b"FLV" else None
    head, position = head[4:], position + 4  # the length of the tag before
    if not head or head[0] & 0x1F not in (8, 9, 18):  # audio, video, script
        return None
    length = int.from_bytes(head[1:4], "big") if len(head) >= 4 else 0
    return _Element("tag", position + 11, position + 11 + length)


_ELEMENTS: dict[str, Callable[[bytes, int], _Element | None]] = {
    "avi": _riff_chunk,
    "matroska,webm": _matroska_element,
    "asf": _asf_object,
    "mov,mp4,m4a,3gp,3g2,mj2": _mov_box,
    "flv": _flv_tag,
}

# Containers of which the last bytes tell


def _unfinished_transport_packet(tail: bytes) -> str | None:
    filled = len(tail.rstrip(b"\0"))  # a file may have been made longer beforehand
    for length in _TRANSPORT_PACKETS:
        for first in range(min(length, len(tail))):
            starts = range(first, filled, length)
            if len(starts) >= 4 and all(tail[start] == 0x47 for start in starts[-20:]):
                missing = starts[-1] + length - len(tail)
                if length == 192:
                    missing -= 4  # its time stamp comes before the sync byte
                elif length == 204:
                    missing = starts[-1] + 188 - len(tail)
                return f"the last {missing} bytes of its last transport packet are missing" if missing > 0 else None
    return None


def _unfinished_ogg_page(tail: bytes) -> str | None:
    start = tail.rfind(b"OggS")
    if start < 0:
        return None
    segments = tail[start + 27 : start + 27 + tail[start + 26]] if len(tail) > start + 26 else b""
    complete = len(tail) > start + 26 and len(segments) == tail[start + 26]
    if complete and start + 27 + len(segments) + sum(segments) <= len(tail):
        return None
    return "its last page is incomplete"


def _unfinished_program_packet(tail: bytes) -> str | None:
    start = max(tail.rfind(b"\0\0\1" + bytes([stream])) for stream in range(0xBD, 0xF0))
    if start < 0 or len(tail) < start + 6:
        return None
    length = int.from_bytes(tail[start + 4 : start + 6], "big")
    missing = start + 6 + length - len(tail)
    return f"the last {missing} bytes of its last packet are missing" if missing > 0 else None


def _missing_gif_trailer(tail: bytes) -> str | None:
    return None if tail.rstrip(b"\0 \r\n").endswith(b";") else "its trailer is missing"


_TAILS: dict[str, Callable[[bytes], str | None]] = {
    "mpegts": _unfinished_transport_packet,
    "mpeg": _unfinished_program_packet,
    "ogg": _unfinished_ogg_page,
    "gif": _missing_gif_trailer,
}
