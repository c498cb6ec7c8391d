"""Detection of truncated files by the sizes of their container elements.

FFmpeg silently reads a file truncated between two packets and, for many containers, within one. The length in seconds
or the number of frames is no evidence, as many complete files state wrong ones; an incomplete element is. Data after
the container, such as zeros or a tag appended by some tool, is no evidence either.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeAlias

# Lengths of a transport packet: plain, with time stamp (m2ts), with error correction.
_TRANSPORT_PACKETS = (188, 192, 204)
_TAIL = 1 << 16


class _ContainerFile(NamedTuple):
    """File to inspect."""

    handle: BinaryIO
    size: int

    def at(self, position: int, length: int = 32) -> bytes:
        """Reads bytes at a position; fewer at the end of the file."""
        self.handle.seek(position)
        return self.handle.read(length)


# Name and end of each part.
_PartEnds: TypeAlias = Iterator[tuple[str, int]]


class _ContainerElement(NamedTuple):
    """Element of a container."""

    name: str
    content: int  # start of its content
    end: int | None  # None: at the end of its content, without a stated length


def missing_end(handle: BinaryIO, size: int, container: str) -> str | None:
    """Looks for evidence that a file is truncated.

    Args:
        handle: The file; its position changes.
        size: Its length in bytes.
        container: FFmpeg's name of its format.

    Returns:
        What is missing, with the evidence; None if nothing is, or if the format leaves no evidence.

    Examples:
        >>> import io
        >>> data = b"RIFF" + bytes(4) + b"AVI LIST" + (100).to_bytes(4, "little") + b"movi" + bytes(20)
        >>> missing_end(io.BytesIO(data), len(data), "avi")
        "its part 'LIST' reaches up to byte 120, but it has only 44"
    """
    content = _ContainerFile(handle, size)
    if container in _PARTS:
        for name, end in _PARTS[container](content):
            if end > size:
                return f"its part {name!r} reaches up to byte {end}, but it has only {size}"
    if container in _TAILS:
        return _TAILS[container](content.at(max(0, size - _TAIL), _TAIL))
    return None


def is_padded(handle: BinaryIO, size: int, container: str) -> bool:
    """Returns whether a file has its complete container, followed only by padding with one repeated byte.

    Args:
        handle: The file; its position changes.
        size: Its length in bytes.
        container: FFmpeg's name of its format.

    Returns:
        Whether it does; False for formats whose packets do not show it, since some might be missing.
    """
    if container not in _KNOWN_BY_PACKETS:
        return False
    end = max((end for _, end in _PARTS[container](_ContainerFile(handle, size))), default=size)
    if end >= size:
        return False
    handle.seek(end)
    padding = handle.read(1)
    while part := handle.read(_TAIL):
        if part.strip(padding):
            return False
    return True


# Containers with elements of stated length


def _elements(read: Callable[[bytes, int], _ContainerElement | None]) -> Callable[[_ContainerFile], _PartEnds]:
    """Returns a parser of consecutive elements, given a function of their first bytes and position."""

    def parts(content: _ContainerFile) -> _PartEnds:
        position = 0
        while position < content.size:
            element = read(content.at(position), position)
            if element is None:
                return
            if element.end is not None:
                yield element.name, element.end
            position = element.content if element.end is None else element.end

    return parts


_RIFF_CHUNK = re.compile(rb"RIFF|LIST|JUNK|idx1")
_RIFF_PACKET = re.compile(rb"[0-9A-Fa-f]{2}(dc|db|wb|tx|pc|sb|iv)|ix[0-9]{2}")


def _riff_chunk(head: bytes, position: int) -> _ContainerElement | None:
    if head[:1] == b"\0":  # chunks of an odd length are padded
        head, position = head[1:], position + 1
    # Other names belong to appended data.
    if len(head) < 8 or not (_RIFF_CHUNK.match(head) or _RIFF_PACKET.match(head)):
        return None
    name, length = head[:4].decode(), struct.unpack("<I", head[4:8])[0]
    # Writers disagree about the total length, so only the parts count. A recording written to a pipe cannot state the
    # length of its packet list.
    if name == "RIFF" or (head[8:12] == b"movi" and length in (0, 0xFFFFFFFF)):
        return _ContainerElement(name, position + 12, None)
    return (
        None
        if length in (0, 0xFFFFFFFF) and name == "LIST"
        else _ContainerElement(name, position + 8, position + 8 + length)
    )


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


def _matroska_element(head: bytes, position: int) -> _ContainerElement | None:
    name_length = 9 - head[0].bit_length()
    name = _MATROSKA_NAMES.get(int.from_bytes(head[:name_length], "big"))
    if name is None:
        return None
    head, position = head[name_length:], position + name_length
    size_length = 9 - head[0].bit_length() if head else 1
    if len(head) < size_length:
        return _ContainerElement(name, position, position + size_length)
    content, unknown = position + size_length, (1 << 7 * size_length) - 1
    length = int.from_bytes(head[:size_length], "big") & unknown
    return _ContainerElement(name, content, None if length == unknown else content + length)


_MOV_BOXES = b"ftyp styp moov moof mdat sidx mfra free skip wide uuid emsg".split()


def _mov_box(head: bytes, position: int) -> _ContainerElement | None:
    if len(head) < 8:  # within a header: lengths begin with a zero, and padding is all zeros
        return (
            _ContainerElement("box", position + 8, position + 8) if head[:1] == b"\0" and head.strip(b"\0") else None
        )
    if head[4:8] not in _MOV_BOXES:
        return None
    name, length = head[4:8].decode(), struct.unpack(">I", head[:4])[0]
    if length == 1:
        length = int.from_bytes(head[8:16].ljust(8, b"\0"), "big")
    # A box of length 0 extends to the end, wherever that is.
    return None if length < 8 else _ContainerElement(name, position + 8, position + length)


def _flv_tag(head: bytes, position: int) -> _ContainerElement | None:
    if position == 0:
        return _ContainerElement("header", 9, 9) if head[:3] == b"FLV" else None
    head, position = head[4:], position + 4  # the length of the tag before
    if not head or head[0] & 0x1F not in (8, 9, 18):  # audio, video, script
        return None
    length = int.from_bytes(head[1:4], "big") if len(head) >= 4 else 0
    return _ContainerElement("tag", position + 11, position + 11 + length)


def _ivf_frame(head: bytes, position: int) -> _ContainerElement | None:
    if position == 0:
        length = int.from_bytes(head[6:8], "little")
        return _ContainerElement("header", length, length) if head[:4] == b"DKIF" and length else None
    length, time = int.from_bytes(head[:4], "little"), head[4:12]
    # Frames have no marker: appended data would give a huge length or time stamp.
    if len(head) < 4 or not 0 < length < 1 << 28 or any(time[6:]):
        return None
    return _ContainerElement("frame", position + 12, position + 12 + length)


_MXF_KEY = bytes.fromhex("060e2b34")
_MXF_HEADER_PARTITION = bytes.fromhex("060e2b34020501010d01020101")


def _mxf_parts(content: _ContainerFile) -> _PartEnds:
    def read(head: bytes, position: int) -> _ContainerElement | None:
        if head[:4] != _MXF_KEY:
            return None
        octets = head[16] & 0x7F if len(head) > 16 and head[16] & 0x80 else 0  # of a long form of the length
        length = int.from_bytes(head[17 : 17 + octets] if octets else head[16:17], "big")
        return _ContainerElement("KLV packet", position + 17 + octets, position + 17 + octets + length)

    head = content.at(0)
    first = read(head, 0)
    if first is not None and head[:13] == _MXF_HEADER_PARTITION:
        # An unfinished file does not state the position of its footer.
        footer = int.from_bytes(content.at(first.content + 24, 8), "big")
        if footer:
            yield "footer partition", footer + 17
    yield from _elements(read)(content)


# Containers whose header gives the length of their parts

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _asf_parts(content: _ContainerFile) -> _PartEnds:
    position = packet = 0
    while position < content.size:
        head = content.at(position)
        if len(head) < 24:
            return
        length = struct.unpack("<Q", head[16:24])[0]
        if head[:16] == _ASF_HEADER and length >= 30:
            yield "Header", position + length
            properties = _asf_object(content, position + 30, position + length, _ASF_FILE_PROPERTIES)
            packet = int.from_bytes(content.at(properties + 92, 4), "little") if properties else 0
        elif head[:16] == _ASF_DATA and length > 50:
            yield "Data", position + length
        elif head[:16] == _ASF_DATA:  # a live recording: any number of packets of one length
            position += 50
            while packet and content.at(position, 1) == b"\x82":  # two bytes for error correction, like all writers
                position += packet
                yield "packet", position
            return
        else:
            return
        position += length


def _asf_object(content: _ContainerFile, position: int, end: int, identifier: bytes) -> int | None:
    """Returns the position of an object at or after a position; None if there is none."""
    while position + 24 <= end:
        head = content.at(position)
        if head[:16] == identifier:
            return position
        length = int.from_bytes(head[16:24], "little")
        if length < 24:
            return None
        position += length
    return None


def _y4m_parts(content: _ContainerFile) -> _PartEnds:
    line = content.at(0, 1024).partition(b"\n")[0].decode("ascii", "replace")
    fields = {field[:1]: field[1:] for field in line.split(" ")[1:]}
    colours = re.fullmatch(r"(420|411|422|444alpha|444|mono)(jpeg|mpeg2|paldv|p?\d+)?", fields.get("C", "420"))
    if colours is None or not (fields.get("W", "").isdecimal() and fields.get("H", "").isdecimal()):
        return
    width, height, kind = int(fields["W"]), int(fields["H"]), colours[1]
    chroma_width = width if kind == "444" else -(-width // (4 if kind == "411" else 2))
    chroma_height = -(-height // 2) if kind == "420" else height
    length = width * height * (4 if kind == "444alpha" else 1)
    if kind not in ("mono", "444alpha"):
        length += 2 * chroma_width * chroma_height
    if (colours[2] or "")[-1:].isdecimal() and colours[2] != "mpeg2":  # more than 8 bits
        length *= 2
    position = len(line) + 1
    while (head := content.at(position, 128)).startswith(b"FRAME"):
        position += len(head.partition(b"\n")[0]) + 1 + length
        yield "frame", position


_DV_CHANNELS = {0x00: 1, 0x01: 1, 0x04: 2, 0x14: 4, 0x18: 2}  # of 10 or 12 sequences a frame, by the kind of signal


def _dv_parts(content: _ContainerFile) -> _PartEnds:
    head, position = content.at(0, 480), 0
    if len(head) < 480 or (head[451] & 0x1F) not in _DV_CHANNELS:
        return
    length = 12000 * (12 if head[3] & 0x80 else 10) * _DV_CHANNELS[head[451] & 0x1F]
    while re.match(rb"[\x10-\x1f][\x00-\x0f]\0", content.at(position, 3)):  # the header of a frame's first sequence
        position += length
        yield "frame", position


def _real_media_parts(content: _ContainerFile) -> _PartEnds:
    position = 0
    while (head := content.at(position))[:4] in (b".RMF", b"PROP", b"MDPR", b"CONT", b"DATA", b"INDX", b"RMMD"):
        length = int.from_bytes(head[4:8], "big")
        if head[:4] == b"DATA" and length <= 18:  # written to a pipe
            position += 18
            while re.match(rb"\x00[\x00\x01]", head := content.at(position, 4)) and (
                len(head) < 4 or head[2:] > b"\0\x0b"
            ):
                position += max(int.from_bytes(head[2:], "big"), 12)
                yield "packet", position
            return
        if length < 10:
            return
        # FFmpeg counts ten bytes of the header twice.
        yield head[:4].decode("ascii"), position + length - 10 * (head[:4] == b"DATA")
        position += length


def _ogg_parts(content: _ContainerFile) -> _PartEnds:
    # By stream serial number: whether the packet at the end of its last page continues.
    goes_on: dict[bytes, bool] = {}
    position = 0
    while (head := content.at(position, 27 + 255)) and b"OggS".startswith(head[:4]):
        lengths = head[27 : 27 + head[26]] if len(head) > 26 else b""
        goes_on[head[14:18]] = lengths[-1:] == b"\xff"
        position += 27 + len(lengths) + sum(lengths)
        yield "page", position
    if position == content.size and any(goes_on.values()):
        yield "page", position + 27


# Containers with an end marker


def _apng_parts(content: _ContainerFile) -> _PartEnds:
    position = 8
    while position <= content.size:
        head = content.at(position, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) == 8 and not kind.isalpha():
            return  # something else
        yield kind.decode("ascii") if kind.isalpha() else "IEND", position + 12 + length
        if kind == b"IEND":
            return
        position += 12 + length


def _gif_parts(content: _ContainerFile) -> _PartEnds:
    def after_colours(position: int, flags: bytes) -> int:
        return position + (3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0)

    position = after_colours(13, content.at(10, 1))
    while True:
        kind = content.at(position, 1)
        if kind == b";" and content.at(position + 1, 4) == b"GIF8":  # another GIF follows, which FFmpeg reads too
            position = after_colours(position + 14, content.at(position + 11, 1))
            continue
        if kind == b";":
            return
        if kind == b"\0":  # some writers leave one between blocks, and files may be preallocated
            block = content.at(position, _TAIL)
            position += len(block) - len(block.lstrip(b"\0"))
            continue
        if kind == b"!":
            name, position = "extension", position + 2
        elif kind == b",":
            name, position = "image", after_colours(position + 10, content.at(position + 9, 1)) + 1
        elif kind:
            return
        else:
            yield "trailer", position + 1
            return
        while (length := content.at(position, 1)) not in (b"\0", b""):
            position += 1 + length[0]
        position += 1
        yield name, position


def _flash_parts(content: _ContainerFile) -> _PartEnds:
    head = content.at(0)
    if head[:3] != b"FWS" or len(head) < 9:  # FFmpeg itself loses the last 4 kB of compressed files
        return
    position = 8 + (5 + 4 * (head[8] >> 3) + 7) // 8 + 4
    while position <= content.size:  # the length in the header is wrong for files written to a pipe
        tag = content.at(position, 6)
        kind, length, start = int.from_bytes(tag[:2], "little") >> 6, tag[0] & 0x3F if tag else 0, 2
        if length == 0x3F:
            length, start = int.from_bytes(tag[2:6], "little"), 6
        position += start + length
        yield "tag" if tag else "end tag", position
        if not kind:
            return


_PARTS: dict[str, Callable[[_ContainerFile], _PartEnds]] = {
    "avi": _elements(_riff_chunk),
    "matroska,webm": _elements(_matroska_element),
    "mov,mp4,m4a,3gp,3g2,mj2": _elements(_mov_box),
    "flv": _elements(_flv_tag),
    "ivf": _elements(_ivf_frame),
    "mxf": _mxf_parts,
    "asf": _asf_parts,
    "yuv4mpegpipe": _y4m_parts,
    "dv": _dv_parts,
    "ogg": _ogg_parts,
    "rm": _real_media_parts,
    "apng": _apng_parts,
    "gif": _gif_parts,
    "swf": _flash_parts,
}

# Containers identified as complete by their last bytes


def _unfinished_transport_packet(tail: bytes) -> str | None:
    filled = len(tail.rstrip(b"\0"))  # a file may be preallocated
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


def _unfinished_program_packet(tail: bytes) -> str | None:
    start = max(tail.rfind(b"\0\0\1" + bytes([stream])) for stream in range(0xBD, 0xF0))
    if start < 0 or len(tail) < start + 6:
        return None
    length = int.from_bytes(tail[start + 4 : start + 6], "big")
    missing = start + 6 + length - len(tail)
    return f"the last {missing} bytes of its last packet are missing" if missing > 0 else None


_KNOWN_BY_PACKETS = ("ivf", "ogg", "yuv4mpegpipe", "swf")

_TAILS: dict[str, Callable[[bytes], str | None]] = {
    "mpegts": _unfinished_transport_packet,
    "mpeg": _unfinished_program_packet,
}
