"""
From the cells of a row to its job, or to everything that is wrong with them.

Decides which cells an edit mode takes. What a value may be is decided by the constructors of what it stands for:
where they refuse a whole row, each cell is tried alone among others that nobody refuses, so that every fault is
found and no rule is written twice.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypedDict, cast

from attrs import define, field, frozen

from ._cells import EMPTY
from ._columns import COLUMNS, MODES, WORDS, EditMode, parsed, unknown
from ._outputs import derived_output, folded
from ._refusals import excerpt
from ._tables import Fault, Row, file_size
from ._urls import check_url
from .edits import Addition, Mode, Removal, Seconds, Swap
from .errors import InvalidInputError, KlingWarning
from .jobs import Job
from .pictures import BYTES_LIMIT, Image
from .points import Point

HELD_MOST: Final = 1024**3
"""Characters of base64 that the picture files of one manifest may come to, each counted once."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
_REASON_MOST = 300
_WHOLE = frozenset({"images", "output", "edit_mode"})
"""What is whole in itself once it could be read."""


@frozen
class ManifestRow:
    """
    One row of a manifest.
    """

    number: int
    """The line of the file where it begins, in Parquet the row; from 1."""
    job: Job
    """What it asks for."""
    output: str
    """The name of the result's file."""


class _Wishes(TypedDict, total=False):
    negative_prompt: str
    mode: Mode
    duration: Seconds
    watermark: bool
    extra: Mapping[str, object]


_WISHES: Final = ("negative_prompt", "mode", "duration", "watermark", "extra")
_ANYTHING: Final[Mapping[str, object]] = {
    "key": "any",
    "video_url": "https://example.com/clip.mp4",
    "what": "it",
    "old": "it",
    "new": "it",
    "images": (Image.from_url("https://example.com/picture.png"),) * 2,
    "points": {0: (Point(0.5, 0.5),)},
}
"""Cells that nobody refuses."""


@define
class RowReader:
    """
    Reads rows. What it knows of picture files is from when it first met each.
    """

    folder: Path
    """What the files of pictures are relative to."""
    spelled: bool
    """Whether text is spelled as cells of a table are."""
    local: bool
    """Whether plain http and addresses of this machine are fine."""
    _pictures: dict[str, Image | InvalidInputError] = field(init=False, factory=dict)
    _held: int = field(init=False, default=0)
    _keys: dict[str, int] = field(init=False, factory=dict)
    _outputs: dict[str, int] = field(init=False, factory=dict)

    def read(self, row: Row) -> ManifestRow | list[Fault]:
        """
        What a row asks for, or all that is wrong with it.

        Args:
            row: Its number and its cells.
        """
        number, cells = row
        faults: list[Fault] = []
        values: dict[str, object] = {}
        given: set[str] = set()
        for name, value in cells.items():
            if name not in COLUMNS:
                faults.append(Fault(number, excerpt(name, 80), unknown(name)))
            elif value not in EMPTY:
                given.add(name)
                try:
                    values[name] = self._value(name, value)
                except InvalidInputError as error:
                    faults.append(_fault(number, name, error.reason))
        key = values.get("key")
        if "output" not in given and isinstance(key, str):
            values["output"] = derived_output(key)
        faults += (_fault(number, name, reason) for name, reason in _misfits(given, values))
        faults += (_fault(number, name, reason) for name, reason in self._repeated(number, values))
        job = None if faults else _tried(values)
        if isinstance(job, Job):
            return ManifestRow(number, job, cast("str", values["output"]))
        faults += (_fault(number, name, reason) for name, reason in _refusals(values))
        if isinstance(job, InvalidInputError) and not faults:  # only together: the words of a template that is too long
            faults.append(_fault(number, job.field, job.reason))
        return faults

    def _repeated(self, number: int, values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        """What another row has already."""
        key, output = (cast("str | None", values.get(name)) for name in ("key", "output"))
        if key is not None and (first := self._keys.setdefault(key, number)) != number:
            yield "key", f"{excerpt(key, 80)!r} is the key of row {first} too, and a key names one paid run"
        elif output is not None and (first := self._outputs.setdefault(folded(output), number)) != number:
            yield "output", f"{output!r} is the file of row {first} too where case makes no difference: give another"

    def _value(self, name: str, value: object) -> object:
        found = parsed(name, value, spelled=self.spelled)
        if name == "video_url" and not self.local:
            check_url(name, found)
        return tuple(map(self._picture, cast("list[str]", found))) if name == "images" else found

    def _picture(self, text: str) -> Image:
        found = self._pictures.get(text)
        if found is None:
            try:
                found = self._image(text)
            except InvalidInputError as error:
                found = InvalidInputError("images", f"{excerpt(text, 80)}: {error.reason}")
            self._pictures[text] = found
        if isinstance(found, InvalidInputError):
            raise InvalidInputError(found.field, found.reason)
        return found

    def _image(self, text: str) -> Image:
        if _URL.match(text):
            check_url("images", text, local=self.local)
            return Image.from_url(text)
        path = self.folder / text
        size = file_size(path)
        if isinstance(size, str):
            raise InvalidInputError("images", size)
        if size > BYTES_LIMIT:
            raise InvalidInputError("images", f"has {size:,} bytes, more than 10 MB: scale it down or give a URL")
        image = Image.from_file(path)
        self._held += len(image.wire)
        if self._held > HELD_MOST:
            raise InvalidInputError("images", "the files of pictures come to more than 1 GB so far: give URLs")
        return image


def _fault(number: int, name: str | None, reason: str) -> Fault:
    return Fault(number, name, excerpt(reason, _REASON_MOST))


def _misfits(given: set[str], values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Cells that are missing, or do not belong together."""
    for name, column in COLUMNS.items():
        if column.required and name not in given:
            yield name, "is missing: every row needs it"
    if not given & {"video_url", "video_id"}:
        yield "video_url", "is missing: give it or video_id"
    elif {"video_url", "video_id"} <= given:
        yield "video_id", "stands beside video_url: give exactly one of them"
    mode = MODES.get(str(values.get("edit_mode")))
    if mode is not None:
        yield from _misfit_words(given, mode)
        yield from _misfit_pictures(given, mode, len(cast("tuple[Image, ...]", values.get("images", ()))))
        if mode.marked and "points" not in given:
            yield "points", f"is missing: {mode.label} needs marked points"


def _misfit_words(given: set[str], mode: EditMode) -> Iterator[tuple[str, str]]:
    takes = f"{mode.label} takes {' and '.join(mode.words)}, or a prompt of your own words"
    for name in WORDS:
        if name in given and name not in mode.words:
            yield name, f"is not for this: {takes}"
        elif name in given and "prompt" in given:
            yield name, "stands beside a prompt, which says it all: give one of them"
        elif name in mode.words and not given & {name, "prompt"}:
            yield name, f"is missing: {takes}"


def _misfit_pictures(given: set[str], mode: EditMode, count: int) -> Iterator[tuple[str, str]]:
    if "images" not in given and mode.least:
        yield "images", f"is missing: {mode.label} needs a picture of what comes"
    elif "images" in given and not mode.most:
        yield "images", f"is not for this: {mode.label} takes no pictures"
    elif count > mode.most:
        yield "images", f"holds {count} pictures, but {mode.label} takes {mode.most} at most"


def _tried(values: Mapping[str, object]) -> Job | InvalidInputError:
    """The job, or why it is refused; a warning is a refusal where the program makes an error of it."""
    try:
        return _job(values)
    except InvalidInputError as error:
        return error
    except KlingWarning as warned:
        return InvalidInputError("prompt", str(warned))


def _refusals(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Cells that are refused even alone, among those that nobody refuses."""
    mode = MODES.get(str(values.get("edit_mode")))
    pictures = cast("tuple[Image, ...]", values.get("images", _ANYTHING["images"]))
    others = {**_ANYTHING, "edit_mode": "removal"}
    if mode is not None:
        others |= {"edit_mode": values["edit_mode"], "images": pictures[: mode.most]}
    passed = _WHOLE if mode else {*_WHOLE, "prompt", *WORDS}
    for name in (name for name in values if name not in passed):
        alone = {**others, name: values[name]}
        if name == "video_id":
            del alone["video_url"]
        refusal = _tried(alone)
        if isinstance(refusal, InvalidInputError):
            yield name, refusal.reason


def _job(values: Mapping[str, object]) -> Job:
    return Job(
        cast("str | None", values.get("video_url")),
        video_id=cast("str | None", values.get("video_id")),
        marks=cast("Mapping[int, tuple[Point, ...]]", values.get("points", {})),
        edit=_edit(values),
        key=cast("str", values["key"]),
    )


def _edit(values: Mapping[str, object]) -> Addition | Swap | Removal:
    wishes = cast("_Wishes", {name: values[name] for name in _WISHES if name in values})
    images = cast("tuple[Image, ...]", values.get("images", ()))
    what, old, new = (cast("str", values.get(name)) for name in WORDS)
    prompt = cast("str | None", values.get("prompt"))
    match values["edit_mode"], prompt:
        case "addition", None:
            return Addition.of(what, *images, **wishes)
        case "addition", str(words):
            return Addition(prompt=words, images=images, **wishes)
        case "swap", None:
            return Swap.of(old, new, images[0], **wishes)
        case "swap", str(words):
            return Swap(prompt=words, image=images[0], **wishes)
        case _, None:
            return Removal.of(what, **wishes)
        case _:
            return Removal(prompt=str(prompt), **wishes)
