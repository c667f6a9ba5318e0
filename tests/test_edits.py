"""
Edits: a wrong one cannot be built.
"""

import pickle
import warnings

import pytest
from hypothesis import given

from kling_async import Addition, Image, InvalidInputError, KlingWarning, Removal, Swap
from kling_async.edits import Edit
from tests import strategies
from tests.strategies import modest

HAT = Image.from_url("https://example.com/hat.png")
CAP = Image.from_url("https://example.com/cap.png")
V, I1, I2 = "<<<video_1>>>", "<<<image_1>>>", "<<<image_2>>>"


@pytest.mark.parametrize(
    "edit, mode, prompt, pictures",
    [
        (Removal.of("the bird"), "removal", f"Delete the bird from {V}", ()),
        (Swap.of("the rabbit", "the cat", CAP), "swap", f"swap the cat from {I1} for the rabbit from {V}", (CAP,)),
        (
            Addition.of("the hat", HAT),
            "addition",
            f"Using the context of {V}, seamlessly add the hat from {I1}",
            (HAT,),
        ),
        (
            Addition.of("the hats", HAT, CAP),
            "addition",
            f"Using the context of {V}, seamlessly add the hats from {I1} and {I2}",
            (HAT, CAP),
        ),
    ],
)
def test_the_providers_templates_are_filled_in(edit, mode, prompt, pictures):
    """
    Each kind has its mode, its prompt, and its pictures in the order of their numbers.
    """
    assert (mode, prompt, pictures) == (edit.edit_mode, edit.prompt, edit.pictures)
    assert (None, "std", None, None, None) == (
        edit.negative_prompt,
        edit.mode,
        edit.duration,
        edit.watermark,
        edit.extra,
    )


@pytest.mark.parametrize(
    "edit",
    [
        Removal.of("a", negative_prompt="b", mode="pro", duration=10, watermark=True, extra={"c": 1}),
        Swap.of("a", "a", HAT, negative_prompt="b", mode="pro", duration=10, watermark=True, extra={"c": 1}),
        Addition.of("a", HAT, negative_prompt="b", mode="pro", duration=10, watermark=True, extra={"c": 1}),
    ],
    ids=lambda edit: edit.edit_mode,
)
def test_the_templates_take_every_field(edit):
    """
    The shortcut is no poorer than the class.
    """
    assert ("b", "pro", 10, True, {"c": 1}) == (
        edit.negative_prompt,
        edit.mode,
        edit.duration,
        edit.watermark,
        edit.extra,
    )


@pytest.mark.parametrize(
    "fields, field",
    [
        pytest.param({"prompt": ""}, "prompt", id="B34"),
        pytest.param({"prompt": " \n"}, "prompt", id="B34-space"),
        pytest.param({"prompt": None}, "prompt", id="B34-none"),
        pytest.param({"prompt": V + "x" * (2501 - len(V))}, "prompt", id="B35"),
        pytest.param({"negative_prompt": "x" * 2501}, "negative_prompt", id="B36"),
        pytest.param({"prompt": f"{V} {I1}"}, "prompt", id="B38-no-picture"),
        pytest.param({"prompt": f"{V} <<<image_0>>>"}, "prompt", id="B38-zero"),
        pytest.param({"prompt": f"{V} \ud800"}, "prompt", id="B39-surrogate"),
        pytest.param({"prompt": f"{V} \udfff"}, "prompt", id="B39-last-surrogate"),
        pytest.param({"prompt": f"{V} \0"}, "prompt", id="B39-nul"),
        pytest.param({"negative_prompt": "\0"}, "negative_prompt", id="B39-negative"),
        pytest.param({"duration": 5.0}, "duration", id="B48-float"),
        pytest.param({"duration": 7}, "duration", id="B48-seven"),
        pytest.param({"duration": True}, "duration", id="B48-bool"),
        pytest.param({"duration": "5s"}, "duration", id="B48-unit"),
        pytest.param({"duration": "7"}, "duration", id="B48-text"),
        pytest.param({"duration": " 5"}, "duration", id="B48-space"),
        pytest.param({"duration": [5]}, "duration", id="B48-list"),
        pytest.param({"mode": "professional"}, "mode", id="B50"),
        pytest.param({"mode": ""}, "mode", id="B50-empty"),
        pytest.param({"mode": None}, "mode", id="B50-none"),
        pytest.param({"mode": []}, "mode", id="B50-list"),
        pytest.param({"extra": {"prompt": "x"}}, "extra", id="B51-prompt"),
        pytest.param({"extra": {"session_id": "1"}}, "extra", id="B51-session"),
        pytest.param({"extra": {"image_list": []}}, "extra", id="B51-images"),
        pytest.param({"extra": {"duration": "5"}}, "extra", id="B51-duration"),
        pytest.param({"watermark": "yes"}, "watermark", id="watermark-text"),
        pytest.param({"watermark": 1}, "watermark", id="watermark-number"),
        pytest.param({"watermark": []}, "watermark", id="watermark-list"),
    ],
)
def test_a_field_that_breaks_a_rule_is_refused_by_name(fields, field):
    """
    By the constructor, long before any request.
    """
    with pytest.raises(InvalidInputError) as refused:
        Removal(**{"prompt": f"Delete the bird from {V}", **fields})
    assert field == refused.value.field


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: Addition(prompt=V, images=[]), id="B41-addition"),
        pytest.param(lambda: Addition.of("a hat"), id="B41-template"),
        pytest.param(lambda: Addition(prompt=V, images=[HAT, CAP, HAT]), id="B42-addition"),
        pytest.param(lambda: Addition(prompt=V, images=["https://example.com/hat.png"]), id="B42-text"),
        pytest.param(lambda: Addition(prompt=V, images=None), id="B42-none"),
        pytest.param(lambda: Swap(prompt=V, image=None), id="B41-swap"),
        pytest.param(lambda: Swap(prompt=V, image=[HAT]), id="B42-list"),
        pytest.param(lambda: Swap(prompt=V, image=[HAT, CAP]), id="B42-swap"),
        pytest.param(lambda: Addition(prompt=f"{V} <<<image_3>>>", images=[HAT]), id="B38-addition"),
        pytest.param(lambda: Swap(prompt=f"{V} {I2}", image=HAT), id="B38-swap"),
        pytest.param(lambda: Edit(prompt=V), id="B33-none"),
    ],
)
def test_pictures_are_counted_by_kind(build):
    """
    One or two for an addition, exactly one for a swap, and none that the prompt names and nobody gave.
    """
    with pytest.raises(InvalidInputError):
        build()


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: Addition(prompt=V), id="B41-addition"),
        pytest.param(lambda: Swap(prompt=V), id="B41-swap"),
        pytest.param(lambda: Removal(prompt=V, images=[]), id="B43"),
        pytest.param(lambda: Removal(prompt=V, image=HAT), id="B43-one"),
        pytest.param(lambda: Removal(prompt=V, edit_mode="remove"), id="B33"),
        pytest.param(lambda: Removal(prompt=V, edit_mode="SWAP"), id="B33-case"),
        pytest.param(lambda: Removal(prompt=V, negitive_prompt="blur"), id="B60"),
        pytest.param(lambda: Removal.of("a", negitive_prompt="blur"), id="B60-template"),
        pytest.param(lambda: Removal(V), id="B60-positional"),
    ],
)
def test_a_field_that_does_not_exist_is_a_type_error(build):
    """
    The kind of an edit is its class, and a slip of the pen is told at the call.
    """
    with pytest.raises(TypeError):
        build()


@pytest.mark.parametrize("given, kept", [(None, None), (5, 5), (10, 10), ("5", 5), ("10", 10)])
def test_a_duration_may_be_spelled_as_on_the_wire(given, kept):
    """
    B48: numbers and their texts are one.
    """
    assert kept == Removal.of("a", duration=given).duration


@pytest.mark.parametrize("character", ["x", "é", "\ue000", "😀"], ids=["B35", "B35-accent", "B35-private", "B40"])
def test_a_prompt_of_2500_characters_is_accepted(character):
    """
    Code points are counted, not bytes nor UTF-16 units.
    """
    prompt = V + character * (2500 - len(V))
    assert 2500 == len(Removal(prompt=prompt, negative_prompt=character * 2500).prompt)


@pytest.mark.parametrize(
    "prompt, reason",
    [
        pytest.param("Delete the bird", "does not name <<<video_1>>>", id="B37"),
        pytest.param(f"Delete the bird from {V} and <<<image", "no reference", id="B38-unclosed"),
        pytest.param(f"Delete the bird from {V} and <<<video_2>>>", "names nothing", id="B38-second-video"),
        pytest.param(f"Delete the bird from {V} and <<<audio_1>>>", "names nothing", id="B38-other-kind"),
        pytest.param(f"Delete the <<<bird>>> from {V}", "no reference", id="B38-unnumbered"),
    ],
)
def test_a_prompt_that_is_likely_not_meant_is_warned_of(prompt, reason):
    """
    Accepted, with a warning that points at the line that wrote it.
    """
    with pytest.warns(KlingWarning, match=reason) as told:
        assert prompt == Removal(prompt=prompt).prompt
    assert [__file__] == [warning.filename for warning in told]


def test_a_prompt_that_names_all_it_uses_is_not_warned_of():
    """
    Nor one that leaves a picture out, which is the author's choice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Addition(prompt=f"{V} with {I2} and {I1}, then {V} again", images=[HAT, CAP])
        Addition(prompt=f"{V} with {I1}", images=(HAT, CAP))


def test_a_single_picture_needs_no_list():
    """
    An addition takes one Image, a list or a tuple.
    """
    assert (HAT,) == Addition(prompt=V, images=HAT).images
    assert (HAT, CAP) == Addition(prompt=V, images=[HAT, CAP]).images


def test_further_fields_are_copied():
    """
    What the caller does to its dictionary afterwards changes no edit.
    """
    fields = {"model_name": "kling-v1-6"}
    edit = Removal.of("a", extra=fields)
    fields["prompt"] = "another"
    assert {"model_name": "kling-v1-6"} == edit.extra


@given(strategies.edits)
@modest
def test_an_edit_is_a_value(edit):
    """
    Equal to its pickle, hashable, and frozen.
    """
    assert edit == pickle.loads(pickle.dumps(edit))
    assert hash(edit) == hash(pickle.loads(pickle.dumps(edit)))
    with pytest.raises(AttributeError):
        edit.prompt = "another"


@pytest.mark.parametrize("what", ["", " ", None])
def test_a_template_of_nothing_is_refused(what):
    """
    "Delete  from the video" would be paid for like any other.
    """
    for build in (
        lambda: Removal.of(what),
        lambda: Swap.of(what, "the cat", HAT),
        lambda: Swap.of("the cat", what, HAT),
        lambda: Addition.of(what, HAT),
    ):
        with pytest.raises(InvalidInputError, match="must name it"):
            build()
