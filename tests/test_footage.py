"""
Video files: read frame by frame, and written again.
"""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from kling_async.simulator._footage import encode, fit, open_clip
from tests.clips import movie, scene, texture


@pytest.fixture(scope="module")
def still():
    return scene(frames=6)


def test_clip_knows_its_size_rate_and_length(still):
    """
    What a clip says of itself is what was put into it.
    """
    clip = open_clip(still.video)
    assert (24.0, 320, 180, 6, 0.25) == (clip.fps, clip.width, clip.height, clip.total_frames, clip.duration)


def test_clip_is_read_from_a_path_too(still, tmp_path):
    """
    A path and its bytes give the same frames.
    """
    path = tmp_path / "clip.mp4"
    path.write_bytes(still.video)
    assert np.array_equal(open_clip(still.video).frame(2), open_clip(path).frame(2))


def test_frames_come_in_order_as_often_as_wanted(still):
    """
    Each pass over the frames decodes them afresh and shows the same.
    """
    clip = open_clip(still.video)
    for _ in range(2):
        apart = [np.abs(one.astype(int) - two).mean() for one, two in zip(clip.frames(), still.frames, strict=True)]
        assert max(apart) < 6


def test_picked_frames_are_those_of_a_full_pass(still):
    """
    Picking gives the same pictures as decoding everything, and passes over what is not there.
    """
    clip = open_clip(still.video)
    everything = list(clip.frames())
    picked = dict(clip.pick([4, 1, 99]))
    assert [1, 4] == list(picked)
    assert np.array_equal(everything[4], picked[4])


def test_frame_that_does_not_exist_is_refused(still):
    """
    Asking past the end says how many frames there are.
    """
    with pytest.raises(ValueError, match="no frame 6; it has 6"):
        open_clip(still.video).frame(6)


def test_small_frames_keep_the_shape(still):
    """
    Small frames fit the side that is asked for.
    """
    assert [(90, 160, 3)] * 6 == [frame.shape for frame in open_clip(still.video).small_frames(160)]


@pytest.mark.parametrize(
    "size, expected", [((1280, 720), (640, 360)), ((100, 50), (100, 50)), ((10, 4000), (8, 640)), ((7, 9), (8, 9))]
)
def test_fit_only_shrinks(size, expected):
    """
    A size is shrunk to the limit, never enlarged but to eight pixels, the least that can be worked with.
    """
    assert expected == fit(*size, 640)


def test_what_is_no_video_is_refused(tmp_path):
    """
    Text, nothing at all, sound, a still picture and a missing file are refused with the reason.
    """
    sound, still = io.BytesIO(), io.BytesIO()
    with av.open(sound, "w", format="wav") as target:
        stream = target.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.rate = 8000
        target.mux(stream.encode(silence))
        target.mux(stream.encode(None))
    with av.open(still, "w", format="image2pipe") as target:
        stream = target.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        target.mux(stream.encode(av.VideoFrame.from_ndarray(texture(16, 16), "rgb24")))
        target.mux(stream.encode(None))
    for source in (b"", b"no video at all" * 90, sound.getvalue(), still.getvalue(), tmp_path / "missing.mp4"):
        with pytest.raises(ValueError, match="cannot be read as a video"):
            open_clip(source)


def test_video_without_frames_is_refused():
    """
    A file that ends before its first frame is refused.
    """
    video = movie([texture(32, 32)], movflags="frag_keyframe+empty_moov")
    with pytest.raises(ValueError, match="has no frames"):
        open_clip(video[: video.index(b"moof") - 4])


def test_frames_survive_encoding(still):
    """
    What is encoded and opened again differs by compression only, and keeps rate and length.
    """
    clip = open_clip(still.video)
    again = open_clip(encode(clip.frames(), clip))
    assert (clip.fps, 320, 180, 6) == (again.fps, again.width, again.height, again.total_frames)
    apart = [np.abs(one.astype(int) - two).mean() for one, two in zip(clip.frames(), again.frames(), strict=True)]
    assert max(apart) < 5


@pytest.mark.parametrize("space", [1, 5, 2])
def test_colours_survive_whatever_the_clip_is_tagged_with(space):
    """
    A clip keeps its tag and its colours, be they those of high definition, of television, or unsaid.
    """
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, :32], frame[:, 32:] = (200, 60, 30), (40, 180, 90)
    clip = open_clip(movie([frame] * 2, space=space))
    video = encode(clip.frames(), clip)
    assert np.abs(frame.astype(int) - open_clip(video).frame(1)).mean() < 6
    with av.open(io.BytesIO(video)) as container:
        assert space == container.streams.video[0].codec_context.colorspace


def test_odd_sides_gain_a_pixel():
    """
    A clip of odd size, which H.264 in yuv420p cannot have, is encoded one pixel larger.
    """
    frames = [texture(45, 63)] * 3
    clip = open_clip(movie(frames, codec="png", form="mov"))
    again = open_clip(encode(clip.frames(), clip))
    assert (63, 45, 64, 46) == (clip.width, clip.height, again.width, again.height)


def test_fractional_rates_stay_exact():
    """
    The rate of television, 30000/1001, is not rounded.
    """
    clip = open_clip(movie([texture(32, 32)] * 3, rate=Fraction(30000, 1001)))
    with av.open(io.BytesIO(encode(clip.frames(), clip))) as container:
        assert Fraction(30000, 1001) == container.streams.video[0].average_rate


def test_sound_is_copied():
    """
    A clip with sound keeps it, packet by packet.
    """
    clip = open_clip(movie([texture(32, 32)] * 24, sound=True))
    with av.open(io.BytesIO(clip.source)) as before, av.open(io.BytesIO(encode(clip.frames(), clip))) as after:
        wanted = [bytes(packet) for packet in before.demux(audio=0) if packet.size]
        assert wanted == [bytes(packet) for packet in after.demux(audio=0) if packet.size]
        assert len(wanted) > 30


def test_video_can_be_played_while_it_arrives(still):
    """
    The index stands before the frames.
    """
    clip = open_clip(still.video)
    video = encode(clip.frames(), clip)
    assert video.index(b"moov") < video.index(b"mdat")
