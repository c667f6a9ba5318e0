"""
What a user asks for: the three kinds of edit.

Every rule that the service would enforce is decided by the constructors, so that a wrong value cannot
be built. Rules: https://klingai.com/document-api/api/video/multi-elements.md
"""

import re
import warnings
from collections.abc import Mapping
from typing import ClassVar, Literal

from attrs import field, frozen

from .errors import InvalidInputError, KlingWarning
from .pictures import Image

__all__ = ("Addition", "Edit", "Removal", "Swap")

PROMPT_LIMIT = 2500

Mode = Literal["std", "pro"]
Seconds = Literal[5, 10]

_REFERENCE = re.compile(r"<<<(\w+?)_(\d+)>>>")
_RESERVED = frozenset(
    {
        "session_id",
        "edit_mode",
        "image_list",
        "prompt",
        "negative_prompt",
        "mode",
        "duration",
        "watermark_info",
        "callback_url",
        "external_task_id",
    }
)


def _check_prompt(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(name, "must say what to do; an empty text is refused")
    if len(value) > PROMPT_LIMIT:
        raise InvalidInputError(name, f"has {len(value)} characters, more than {PROMPT_LIMIT}")
    if any(character == "\0" or 0xD800 <= ord(character) < 0xE000 for character in value):
        raise InvalidInputError(name, "holds a NUL or a lone surrogate, which cannot be sent")


def _said(value: str | None) -> str | None:
    return None if value == "" else value


def _duration(value: object) -> Seconds | None:
    if value is None:
        return None
    if isinstance(value, str | int):
        if value in {5, "5"}:
            return 5
        if value in {10, "10"}:
            return 10
    raise InvalidInputError("duration", f"must be 5 or 10 seconds, or None for what the clip allows, not {value!r}")


def _extra(value: Mapping[str, object] | None) -> Mapping[str, object] | None:
    if value is None:
        return None
    for key in value:
        if key in _RESERVED:
            raise InvalidInputError("extra", f"{key!r} has a field of its own: set it there")
    return dict(value)


@frozen(kw_only=True)
class Edit:
    """
    What the three edits share; build an `Addition`, a `Swap` or a `Removal`.

    Raises:
        InvalidInputError: A field breaks a documented rule.
    """

    edit_mode: ClassVar[str] = ""

    prompt: str = field()
    """What to do, at most 2,500 characters; it names the clip as `<<<video_1>>>`, pictures as `<<<image_1>>>`."""
    negative_prompt: str | None = field(default=None, converter=_said)
    """What to avoid, at most 2,500 characters; an empty text is none."""
    mode: Mode = field(default="std")
    """`std`, or `pro` for better quality at a higher price."""
    duration: Seconds | None = field(default=None, converter=_duration)
    """Seconds of the result, 5 or 10; None is what the clip's length allows."""
    watermark: bool | None = None
    """Whether a watermarked copy is made too; None leaves it to the service."""
    extra: Mapping[str, object] | None = field(default=None, converter=_extra, hash=False)
    """Further fields of the create body, sent as they are."""

    @property
    def pictures(self) -> tuple[Image, ...]:
        """The reference pictures, in the order of `<<<image_1>>>`, `<<<image_2>>>`."""
        return ()

    def __attrs_post_init__(self) -> None:
        if not self.edit_mode:
            raise InvalidInputError("edit", "use Addition, Swap or Removal")
        _check_prompt("prompt", self.prompt)
        if self.negative_prompt is not None:
            _check_prompt("negative_prompt", self.negative_prompt)
        if self.mode not in ("std", "pro"):  # a tuple, for a set would hash what was given
            raise InvalidInputError("mode", f"must be 'std' or 'pro', not {self.mode!r}")
        if not isinstance(self.watermark, bool | None):
            raise InvalidInputError("watermark", f"must be True, False or None, not {self.watermark!r}")
        self._check_references()

    def _check_references(self) -> None:
        named = {(kind, int(number)) for kind, number in _REFERENCE.findall(self.prompt)}
        for kind, number in sorted(named - {("video", 1)}):
            if kind != "image":
                _warn(f"<<<{kind}_{number}>>> names nothing that the service documents")
            elif not 1 <= number <= len(self.pictures):
                reason = f"<<<image_{number}>>> names nothing: there are {len(self.pictures)} pictures"
                raise InvalidInputError("prompt", reason)
        if ("video", 1) not in named:
            _warn("the prompt does not name <<<video_1>>>; the service advises to")
        if len(_REFERENCE.findall(self.prompt)) != self.prompt.count("<<<"):
            _warn("the prompt holds a '<<<' that is no reference such as <<<video_1>>>")


def _warn(text: str) -> None:
    # The constructors of attrs stand between this line and the user's: name the user's.
    warnings.warn(text, KlingWarning, stacklevel=5)


def _named(name: str, value: object) -> str:
    """What a template speaks of: an empty text would be paid for all the same."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(name, f"must name it, such as 'the bird', not {value!r}")
    return value


def _pictures(value: object) -> tuple[Image, ...]:
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    for picture in given:
        if not isinstance(picture, Image):
            raise InvalidInputError("image", "use Image.from_url, Image.from_file or Image.from_bytes")
    return given


@frozen(kw_only=True)
class Addition(Edit):
    """
    Adds something from one or two reference pictures.

    Example:
        >>> hat = Image.from_url("https://example.com/hat.png")
        >>> Addition.of("the hat", hat).prompt
        'Using the context of <<<video_1>>>, seamlessly add the hat from <<<image_1>>>'

    Raises:
        InvalidInputError: There are not one or two pictures, or a field breaks a documented rule.
    """

    edit_mode: ClassVar[str] = "addition"

    images: tuple[Image, ...] = field(converter=_pictures)
    """One or two pictures."""

    @images.validator
    def _check_images(self, _attribute: object, value: tuple[Image, ...]) -> None:
        if not 1 <= len(value) <= 2:
            raise InvalidInputError("images", f"an addition takes one or two pictures, not {len(value)}")

    @property
    def pictures(self) -> tuple[Image, ...]:
        """The reference pictures."""
        return self.images

    @classmethod
    def of(
        cls,
        what: str,
        *images: Image,
        negative_prompt: str | None = None,
        mode: Mode = "std",
        duration: Seconds | None = None,
        watermark: bool | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> "Addition":
        """
        An addition with the provider's prompt template.

        Raises:
            InvalidInputError: As for the class.
        """
        named = " and ".join(f"<<<image_{number}>>>" for number in range(1, len(images) + 1))
        return cls(
            prompt=f"Using the context of <<<video_1>>>, seamlessly add {_named('what', what)} from {named}",
            images=images,
            negative_prompt=negative_prompt,
            mode=mode,
            duration=duration,
            watermark=watermark,
            extra=extra,
        )


@frozen(kw_only=True)
class Swap(Edit):
    """
    Puts what a picture shows in the place of the marked object.

    Example:
        >>> cat = Image.from_url("https://example.com/cat.png")
        >>> Swap.of("the rabbit", "the cat", cat).prompt
        'swap the cat from <<<image_1>>> for the rabbit from <<<video_1>>>'

    Raises:
        InvalidInputError: There is not exactly one picture, or a field breaks a documented rule.
    """

    edit_mode: ClassVar[str] = "swap"

    image: Image = field()
    """The picture of what comes instead."""

    @image.validator
    def _check_image(self, _attribute: object, value: object) -> None:
        if not isinstance(value, Image):
            raise InvalidInputError("image", "a swap takes exactly one Image")

    @property
    def pictures(self) -> tuple[Image, ...]:
        """The reference pictures."""
        return (self.image,)

    @classmethod
    def of(
        cls,
        old: str,
        new: str,
        image: Image,
        *,
        negative_prompt: str | None = None,
        mode: Mode = "std",
        duration: Seconds | None = None,
        watermark: bool | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> "Swap":
        """
        A swap with the provider's prompt template.

        Raises:
            InvalidInputError: As for the class.
        """
        return cls(
            prompt=f"swap {_named('new', new)} from <<<image_1>>> for {_named('old', old)} from <<<video_1>>>",
            image=image,
            negative_prompt=negative_prompt,
            mode=mode,
            duration=duration,
            watermark=watermark,
            extra=extra,
        )


@frozen(kw_only=True)
class Removal(Edit):
    """
    Removes the marked object.

    Example:
        >>> Removal.of("the bird").prompt
        'Delete the bird from <<<video_1>>>'

    Raises:
        InvalidInputError: A field breaks a documented rule.
    """

    edit_mode: ClassVar[str] = "removal"

    @classmethod
    def of(
        cls,
        what: str,
        *,
        negative_prompt: str | None = None,
        mode: Mode = "std",
        duration: Seconds | None = None,
        watermark: bool | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> "Removal":
        """
        A removal with the provider's prompt template.

        Raises:
            InvalidInputError: As for the class.
        """
        return cls(
            prompt=f"Delete {_named('what', what)} from <<<video_1>>>",
            negative_prompt=negative_prompt,
            mode=mode,
            duration=duration,
            watermark=watermark,
            extra=extra,
        )
