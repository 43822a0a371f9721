"""MP4 and M4A (AAC, ALAC): writes the item list ``moov.udta.meta.ilst``; see ISO/IEC 14496-12 and Apple's QuickTime.

All other atoms stay unchanged, except the sizes of the atoms around the list and, if the audio moves, the tables of
chunk offsets. Files with other kinds of offsets (fragments, encryption, items) are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stonecli.errors import TagError
from stonecli.tags.edit.splice import Span, Splice, file_size, read_at
from stonecli.tags.fields import checked_utf8, followed
from stonecli.tags.rules import Changes, Field

_MEAN, _NAME, _FOLLOWER = b"com.apple.iTunes", b"initialkey", b"key"
_TEXT_ATOMS: dict[Field, bytes] = {"comment": b"\xa9cmt", "grouping": b"\xa9grp", "title": b"\xa9nam"}
_SIGNED_INTEGER = 21  # type of a data atom
_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta"}
_OFFSET_TABLES = {b"stco": 4, b"co64": 8}  # bytes per entry
_REFUSED = {
    b"moof": "a fragmented MP4 cannot be written safely",
    b"mvex": "a fragmented MP4 cannot be written safely",
    b"sidx": "a fragmented MP4 cannot be written safely",
    b"mfra": "a fragmented MP4 cannot be written safely",
    b"saio": "an encrypted MP4 cannot be written safely",
    b"iloc": "an MP4 with items cannot be written safely",
    b"cmov": "an MP4 with a compressed header cannot be written safely",
}
_PADDING = 1024  # bytes; added when the list has to grow, so that the next change fits
_MAX_TABLE = 1 << 28  # bytes
_MAX_DEPTH = 12


@dataclass(frozen=True)
class _Atom:
    name: bytes
    offset: int
    head: int  # 8 or 16 bytes
    end: int
    parent: _Atom | None

    @property
    def content(self) -> int:
        return self.offset + self.head


def splices(file: BinaryIO, container: str, changes: Changes) -> list[Splice]:
    """The splices that make the changes.

    Raises:
        TagError: the atoms do not cover the whole file, or it has offsets that stone cannot update.
    """
    atoms = _all_atoms(file)
    moov = _moov(atoms)
    udta, meta, ilst = _tag_path(file, atoms, moov)
    if meta and ilst:
        items = [read_at(file, item.offset, item.end - item.offset) for item in _children(file, ilst)]
        new = _edit_items(items, changes)
        start, end = ilst.offset, ilst.end
        following = next((atom for atom in atoms if atom.offset == end and atom.parent == meta), None)
        if following and following.name == b"free":
            end = following.end
        data = _padded(_atom(b"ilst", new), room=end - start)
        return _grown(file, atoms, meta, start, end - start, data)
    new = _edit_items([], changes)
    data = _atom(b"ilst", new) + _atom(b"free", bytes(_PADDING))
    if meta:
        return _grown(file, atoms, meta, meta.end, 0, data)
    handler = _atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    data = _atom(b"meta", bytes(4) + handler + data)
    if udta:
        return _grown(file, atoms, udta, udta.end, 0, data)
    return _grown(file, atoms, moov, moov.end, 0, _atom(b"udta", data))


def payload(file: BinaryIO, container: str) -> Iterator[bytes | Span]:
    """The atoms except ``moov`` and free space, and the position in them that every chunk offset refers to.

    Raises:
        TagError: the atoms do not cover the whole file.
    """
    atoms = _all_atoms(file)
    _moov(atoms)
    top_level = [atom for atom in atoms if atom.parent is None and atom.name not in (b"moov", b"free", b"skip")]
    for atom in top_level:
        yield atom.name
        yield Span(atom.content, atom.end - atom.content)
    end = max(atom.end for atom in atoms if atom.parent is None)
    if end < file_size(file):
        yield Span(end, file_size(file) - end)
    for table in atoms:
        if table.name in _OFFSET_TABLES:
            yield table.name
            yield b"".join(_relative_offset(offset, top_level) for offset in _offsets(file, table))


def _relative_offset(offset: int, top_level: list[_Atom]) -> bytes:
    for number, atom in enumerate(top_level):
        if atom.content <= offset <= atom.end:
            return number.to_bytes(4) + (offset - atom.content).to_bytes(8)
    raise TagError("an MP4 chunk lies outside the audio")


def _all_atoms(file: BinaryIO) -> list[_Atom]:
    """The atoms of the file that matter for editing tags, parents before children."""
    found: list[_Atom] = []
    pending = [(atom, 0) for atom in reversed(_walk(file, 0, file_size(file), None))]
    while pending:
        atom, depth = pending.pop()
        found.append(atom)
        if atom.name in _REFUSED:
            raise TagError(_REFUSED[atom.name])
        if atom.name == b"meta" and not _is_list_meta(file, atom):
            if b"iloc" in read_at(file, atom.content, min(atom.end - atom.content, _MAX_TABLE)):
                raise TagError(_REFUSED[b"iloc"])
        elif atom.name in _PARENTS or atom.name == b"meta":
            if depth > _MAX_DEPTH:
                raise TagError("the MP4 atoms are nested too deeply")
            pending += [(child, depth + 1) for child in reversed(_children(file, atom))]
    return found


def _is_list_meta(file: BinaryIO, atom: _Atom) -> bool:
    """Whether a ``meta`` atom is in ``moov.udta`` and starts with version and flags, as in ISO files."""
    in_udta = atom.parent is not None and atom.parent.name == b"udta"
    in_moov = in_udta and atom.parent is not None and atom.parent.parent is not None
    return in_moov and atom.end - atom.content >= 4 and read_at(file, atom.content, 4) == bytes(4)


def _children(file: BinaryIO, atom: _Atom) -> list[_Atom]:
    return _walk(file, atom.content + (4 if atom.name == b"meta" else 0), atom.end, atom)


def _is_whole(atoms: list[_Atom], parent: _Atom | None) -> bool:
    """Whether the file is complete after these atoms, so that the bytes that follow can be ignored."""
    return parent is None and {b"moov", b"mdat"} <= {atom.name for atom in atoms}


def _walk(file: BinaryIO, at: int, end: int, parent: _Atom | None) -> list[_Atom]:
    atoms: list[_Atom] = []
    while at < end:
        if end - at < 8:
            if _is_whole(atoms, parent):
                return atoms
            raise TagError("the MP4 atoms are inconsistent")
        header = read_at(file, at, 8)
        length, head = int.from_bytes(header[:4]), 8
        if length == 1:
            length, head = int.from_bytes(read_at(file, at + 8, 8)), 16
        elif length == 0 and parent is None and header[4:] == b"mdat":
            length = end - at
        if length < head or at + length > end:
            if _is_whole(atoms, parent):
                return atoms
            raise TagError("the MP4 atoms are inconsistent")
        atoms.append(_Atom(header[4:], at, head, at + length, parent))
        at += length
    return atoms


def _moov(atoms: list[_Atom]) -> _Atom:
    found = [atom for atom in atoms if atom.name == b"moov" and atom.parent is None]
    if len(found) != 1 or atoms[0].name != b"ftyp":
        raise TagError("the MP4 must have exactly one header (moov)")
    if not any(atom.name == b"mdat" for atom in atoms):
        raise TagError("the MP4 has no audio (mdat)")
    return found[0]


def _tag_path(file: BinaryIO, atoms: list[_Atom], moov: _Atom) -> tuple[_Atom | None, _Atom | None, _Atom | None]:
    """The atoms ``udta``, ``meta`` and ``ilst``, or None for each that does not exist."""

    def child(parent: _Atom | None, name: bytes) -> _Atom | None:
        found = [atom for atom in atoms if parent and atom.parent == parent and atom.name == name]
        if len(found) > 1:
            raise TagError("the MP4 has more than one tag list")
        return found[0] if found else None

    udta = child(moov, b"udta")
    meta = child(udta, b"meta")
    if meta:
        handler = child(meta, b"hdlr")
        if not handler or read_at(file, handler.content + 8, 4) != b"mdir":
            raise TagError("the MP4 metadata is not an iTunes list")
    return udta, meta, child(meta, b"ilst")


def _edit_items(items: list[bytes], changes: Changes) -> bytes:
    for field, text in changes.items():
        data = b"" if text is None else text.encode()
        if field == "key":
            written = next((value for item in items if _free_form_name(item) == _NAME for value in _texts(item)), None)
            items = [changed for item in items if (changed := _followed(item, text, written))]
            indices = [index for index, item in enumerate(items) if _free_form_name(item) == _NAME]
            new = [] if text is None else [_atom(b"----", _free_form(data))]
            first = indices[0] if indices else len(items)
            items = [
                *items[:first],
                *new,
                *(item for index, item in enumerate(items[first:], first) if index not in indices),
            ]
        elif field == "bpm":
            items = _with_tempo(items, text)
        else:
            name = _TEXT_ATOMS[field]
            found = next((index for index, item in enumerate(items) if item[4:8] == name), None)
            if found is not None:
                items[found] = _with_first_value(items[found], None if text is None else data)
            elif text is not None:
                items.append(_atom(name, _value(data)))
    return b"".join(items)


def _with_tempo(items: list[bytes], text: str | None) -> list[bytes]:
    """The items with one ``tmpo`` at the position of the first, a whole number; None removes it."""
    indices = [index for index, item in enumerate(items) if item[4:8] == b"tmpo"]
    first = indices[0] if indices else len(items)
    rest = [item for index, item in enumerate(items) if index not in indices]
    if text is None:
        return rest
    data = _atom(b"data", _SIGNED_INTEGER.to_bytes(4) + bytes(4) + int(text).to_bytes(2))
    return [*rest[:first], _atom(b"tmpo", data), *rest[first:]]


def _free_form_name(item: bytes) -> bytes:
    """The name of an item ``----:com.apple.iTunes:NAME`` in lower case; ``b""`` for other items."""
    if item[4:8] != b"----":
        return b""
    mean_end = 8 + int.from_bytes(item[8:12])
    name_end = _name_end(item)
    mean, name = item[20:mean_end], item[mean_end + 12 : name_end]
    return name.lower() if item[12:16] == b"mean" and mean == _MEAN else b""


def _name_end(item: bytes) -> int:
    mean_end = 8 + int.from_bytes(item[8:12])
    return mean_end + int.from_bytes(item[mean_end : mean_end + 4])


def _values(item: bytes) -> list[bytes]:
    """The ``data`` atoms of a free-form item.

    Raises:
        TagError: they are inconsistent.
    """
    atoms = []
    at = _name_end(item)
    while at < len(item):
        end = at + int.from_bytes(item[at : at + 4])
        if item[at + 4 : at + 8] != b"data" or end < at + 16 or end > len(item):
            raise TagError("a free-form item of the MP4 is damaged")
        atoms.append(item[at:end])
        at = end
    return atoms


def _texts(item: bytes) -> list[str]:
    return [atom[16:].decode("utf-8", "replace") for atom in _values(item)]


def _followed(item: bytes, text: str | None, written: str | None) -> bytes:
    """The item; if it is a ``KEY``, with its plain keys updated as followers, and ``b""`` if no value is left."""
    if _free_form_name(item) != _FOLLOWER:
        return item
    values = _texts(item)
    new = followed(values, text, written)
    if new == values:
        return item
    head = item[8 : _name_end(item)]
    if len(new) < len(values):
        remaining = [atom for atom, value in zip(_values(item), values, strict=True) if value != written]
        return _atom(b"----", head + b"".join(remaining)) if remaining else b""
    pairs = zip(_values(item), values, new, strict=True)
    atoms = [atom if old == value else _value(value.encode()) for atom, old, value in pairs]
    return _atom(b"----", head + b"".join(atoms))


def _with_first_value(item: bytes, data: bytes | None) -> bytes:
    """A text item with another first value, or without it; ``b""`` if no value is left."""
    end = 8 + int.from_bytes(item[8:12])
    if item[12:16] != b"data" or item[16:20] not in (bytes(4), (1).to_bytes(4)) or not 24 <= end <= len(item):
        raise TagError("a text item of the MP4 is damaged")
    checked_utf8(item[24:end])
    values = (_atom(b"data", item[16:24] + data) if data is not None else b"") + item[end:]
    return _atom(item[4:8], values) if values else b""


def _free_form(data: bytes) -> bytes:
    return _atom(b"mean", bytes(4) + _MEAN) + _atom(b"name", bytes(4) + _NAME) + _value(data)


def _value(data: bytes) -> bytes:
    return _atom(b"data", (1).to_bytes(4) + bytes(4) + data)  # type 1: UTF-8


def _atom(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + name + content


def _padded(ilst: bytes, room: int) -> bytes:
    left = room - len(ilst)
    if left == 0:
        return ilst
    return ilst + _atom(b"free", bytes(left - 8 if left >= 8 else _PADDING))


def _grown(file: BinaryIO, atoms: list[_Atom], parent: _Atom, start: int, length: int, data: bytes) -> list[Splice]:
    """The splices that replace ``length`` bytes in ``parent`` by ``data`` and update all affected sizes and offsets."""
    growth = len(data) - length
    result = [Splice(start, length, data)]
    if not growth:
        return result
    around: _Atom | None = parent
    while around:
        size = around.end - around.offset + growth
        if around.head == 8 and size >= 1 << 32:
            raise TagError("an MP4 atom would grow over 4 GiB")
        at, width = (around.offset, 4) if around.head == 8 else (around.offset + 8, 8)
        result.append(Splice(at, width, size.to_bytes(width)))
        around = around.parent
    for table in atoms:
        if table.name in _OFFSET_TABLES:
            width = _OFFSET_TABLES[table.name]
            old = _offsets(file, table)
            new = [offset + growth if offset >= start + length else offset for offset in old]
            if max(new, default=0) >= 1 << 8 * width:
                raise TagError("the MP4 would grow over 4 GiB")
            if new != old:
                entries = b"".join(offset.to_bytes(width) for offset in new)
                result.append(Splice(table.content + 8, len(entries), entries))
    return result


def _offsets(file: BinaryIO, table: _Atom) -> list[int]:
    width = _OFFSET_TABLES[table.name]
    count = int.from_bytes(read_at(file, table.content + 4, 4))
    if 8 + count * width > table.end - table.content or count * width > _MAX_TABLE:
        raise TagError("a table of the MP4 is damaged")
    entries = read_at(file, table.content + 8, count * width)
    return [int.from_bytes(entries[at : at + width]) for at in range(0, len(entries), width)]
