"""
The columns of a manifest: what each is called, what may stand in it, and how a table spells that.

The one table from which both the reader and the published schema are made. Decides nothing of what the cells of a
row mean together but which an edit mode asks for.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Final

from attrs import frozen

from . import _cells
from ._ledger import FRAMES_MOST, POINTS_MOST
from ._outputs import BYTES_MOST, END, OUTPUT
from ._urls import URL_LIMIT
from .edits import PROMPT_LIMIT
from .errors import InvalidInputError


@frozen(kw_only=True)
class EditMode:
    """
    What an edit mode asks of its row.
    """

    label: str
    """What it is called in a sentence."""
    words: tuple[str, ...]
    """The columns that fill the provider's prompt template, where there is no prompt."""
    least: int
    """How many pictures it takes at least."""
    most: int
    """How many at most."""
    marked: bool
    """Whether it needs marked points."""


MODES: Final[Mapping[str, EditMode]] = {
    "addition": EditMode(label="an addition", words=("what",), least=1, most=2, marked=False),
    "swap": EditMode(label="a swap", words=("old", "new"), least=1, most=1, marked=True),
    "removal": EditMode(label="a removal", words=("what",), least=0, most=0, marked=True),
}
WORDS: Final = ("what", "old", "new")
"""The columns of the templates."""


@frozen(kw_only=True)
class Column:
    """
    One column.
    """

    about: str
    """What it is for."""
    schema: Mapping[str, object]
    """What may stand in it in JSON, as JSON Schema."""
    plain: Callable[[str, object], object] = _cells.as_text
    """What a JSON value stands for; it raises InvalidInputError under the name that it is given."""
    spelled: Callable[[str, str], object] = _cells.as_text
    """The same for the text of a table's cell."""
    required: bool = False
    """Whether every row needs it."""


def _words(about: str) -> Column:
    return Column(about=about, schema={"type": "string", "maxLength": PROMPT_LIMIT, "pattern": r"\S"})


_FRACTION: Mapping[str, object] = {"type": "number", "minimum": 0, "maximum": 1}
_PAIR: Mapping[str, object] = {"type": "array", "items": _FRACTION, "minItems": 2, "maxItems": 2}

COLUMNS: Final[Mapping[str, Column]] = {
    "key": Column(
        about="Names this one paid run in the whole account, for ever: the same key again pays nothing.",
        schema={"type": "string", "pattern": _cells.KEY},
        plain=_cells.as_key,
        spelled=_cells.as_key,
        required=True,
    ),
    "output": Column(
        about="The name of the result's file; by default it follows from the key.",
        schema={"type": "string", "maxLength": BYTES_MOST, "pattern": OUTPUT},
        plain=_cells.as_output,
        spelled=_cells.as_output,
    ),
    "video_url": Column(
        about="A public URL of the clip; or else give video_id.",
        schema={"type": "string", "maxLength": URL_LIMIT, "pattern": rf"^[Hh][Tt][Tt][Pp][Ss]?://\S+{END}"},
    ),
    "video_id": Column(
        about="In place of video_url, the id of a result of the same account.",
        schema={"type": "string", "pattern": r"\S"},
    ),
    "edit_mode": Column(
        about="What is done.",
        schema={"enum": list(MODES)},
        plain=partial(_cells.as_choice, among=MODES),
        spelled=partial(_cells.as_choice, among=MODES),
        required=True,
    ),
    "prompt": _words("Your own words in place of the provider's template; they name <<<video_1>>> and <<<image_1>>>."),
    "what": _words("What is removed or added, such as: the bird."),
    "old": _words("What a swap takes away."),
    "new": _words("What a swap puts in its place."),
    "images": Column(
        about="Pictures of what comes: URLs, or files relative to the manifest's folder."
        f" In CSV separated by {_cells.SEPARATOR}, which no URL holds.",
        schema={"type": "array", "items": {"type": "string", "minLength": 1}},
        plain=_cells.as_list,
        spelled=_cells.spelled_list,
    ),
    "points": Column(
        about="What is meant: points (x, y) from 0 to 1, (0, 0) at the top left, by frame index."
        f" In CSV FRAME:X,Y, several separated by {_cells.SEPARATOR}.",
        schema={
            "type": "object",
            "propertyNames": {"pattern": _cells.FRAME},
            "additionalProperties": {
                "type": "array",
                "items": _PAIR,
                "minItems": 1,
                "maxItems": POINTS_MOST,
                "uniqueItems": True,
            },
            "maxProperties": FRAMES_MOST,
        },
        plain=_cells.as_marks,
        spelled=_cells.spelled_marks,
    ),
    "negative_prompt": _words("What to avoid."),
    "mode": Column(
        about="pro looks better and costs more; by default std.",
        schema={"enum": ["std", "pro"]},
    ),
    "duration": Column(
        about="Seconds of the result; by default what the clip's length allows.",
        schema={"enum": [5, 10, "5", "10"]},
        plain=_cells.as_seconds,
        spelled=_cells.spelled_seconds,
    ),
    "watermark": Column(
        about="Whether a watermarked copy is made too; by default the service decides.",
        schema={"type": "boolean"},
        plain=_cells.as_switch,
        spelled=_cells.spelled_switch,
    ),
    "extra": Column(
        about="Further fields of the create body, sent as they are. In CSV a JSON object.",
        schema={"type": "object"},
        plain=_cells.as_object,
        spelled=_cells.spelled_object,
    ),
}
"""Every column by its name, in the order in which they are best read."""


def parsed(name: str, value: object, *, spelled: bool) -> object:
    """
    What a cell says.

    Args:
        name: Its column.
        value: What stands in it.
        spelled: Whether text in it is spelled as a table has to.

    Raises:
        InvalidInputError: Nothing that may stand there.
    """
    if isinstance(value, _cells.Unreadable):
        raise InvalidInputError(name, value.reason)
    if spelled and isinstance(value, str):
        return COLUMNS[name].spelled(name, _cells.as_text(name, value))
    return COLUMNS[name].plain(name, value)


@lru_cache(maxsize=256)
def unknown(name: str) -> str:
    """
    What is wrong with a column that is none of these.

    Args:
        name: What it is called.
    """
    if ";" in name or "\t" in name:
        return "is no column; the cells of a CSV file are separated by commas"
    return f"is no column{_cells.guess(name, COLUMNS)}"
