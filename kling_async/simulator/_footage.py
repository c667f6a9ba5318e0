"""
Video files for the simulator's eyes and hands: read frame by frame, and written again.

Decides how a clip is decoded and encoded. Knows nothing of what is in its frames. Frames are streamed both ways: a
clip holds none of them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ._halt import heed

Pixels = NDArray[np.uint8]

WORK_SIDE = 640
_SOUNDS = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "mp3float", "opus"})


def _container(source: bytes | Path) -> av.container.InputContainer:
    return av.open(BytesIO(source) if isinstance(source, bytes) else str(source), "r")


@contextmanager
def _opened(source: bytes | Path) -> Iterator[av.container.InputContainer]:
    try:
        with _container(source) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"the clip cannot be read as a video: {error}") from error


@frozen(kw_only=True)
class Clip:
    """
    A video that is decoded afresh whenever its frames are asked for.

    >>> clip = open_clip(Path("bunny-24fps-4s.mp4"))  # doctest: +SKIP
    >>> clip.frame(40).shape  # doctest: +SKIP
    (720, 1280, 3)
    """

    source: bytes | Path = field(repr=False)
    "Where it is decoded from."
    fps: float
    "Frames in a second, on average."
    width: int
    "Of a frame, in pixels."
    height: int
    "Of a frame, in pixels."
    total_frames: int
    "How many frames there are."
    duration: float
    "In seconds."

    def frames(self) -> Iterator[Pixels]:
        """
        Its frames in order, RGB, h x w x 3.
        """
        for picture in self._pictures():
            yield _rgb(picture)

    def frame(self, index: int) -> Pixels:
        """
        One frame, RGB.

        Args:
            index: From 0.

        Raises:
            ValueError: The clip has no such frame.
        """
        for _, frame in self.pick([index]):
            return frame
        raise ValueError(f"the clip has no frame {index}; it has {self.total_frames}")

    def pick(self, indexes: Iterable[int]) -> Iterator[tuple[int, Pixels]]:
        """
        Some frames with their indexes, in order.

        Args:
            indexes: From 0; those that the clip does not have are passed over.
        """
        wanted = set(indexes)
        for number, picture in enumerate(self._pictures()):
            if number in wanted:
                yield number, _rgb(picture)

    def small_frames(self, side: int = WORK_SIDE) -> Iterator[Pixels]:
        """
        Its frames, none of whose sides is longer than this.

        Args:
            side: In pixels.
        """
        width, height = fit(self.width, self.height, side)
        for picture in self._pictures():
            yield _rgb(picture.reformat(width, height, "rgb24", interpolation="AREA"))

    def _pictures(self) -> Iterator[av.VideoFrame]:
        with _opened(self.source) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for picture in container.decode(stream):
                heed()
                yield picture


def _rgb(picture: av.VideoFrame) -> Pixels:
    return np.asarray(picture.to_ndarray(format="rgb24"), dtype=np.uint8)


def open_clip(source: bytes | Path) -> Clip:
    """
    Look at a video without decoding it.

    Args:
        source: Bytes of a video file, or its path.

    Raises:
        ValueError: It is no video.
    """
    with _opened(source) as container:
        if not container.streams.video or container.format.name.endswith(("_pipe", "image2")):
            raise ValueError("the clip cannot be read as a video: it has no moving pictures")
        stream = container.streams.video[0]
        total = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        rate = stream.average_rate
        if not total or not rate:
            raise ValueError("the clip cannot be read as a video: it has no frames")
        fps = float(rate)
        return Clip(
            source=source,
            fps=fps,
            width=stream.width,
            height=stream.height,
            total_frames=total,
            duration=total / fps,
        )


def fit(width: int, height: int, side: int) -> tuple[int, int]:
    """
    A size of the same shape with no side longer than this.

    Args:
        width: Of the original.
        height: Of the original.
        side: The limit.
    """
    scale = min(1.0, side / max(width, height))
    return max(8, round(width * scale)), max(8, round(height * scale))


def _even(frame: Pixels) -> Pixels:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def encode(frames: Iterable[Pixels], like: Clip) -> bytes:
    """
    An MP4 (H.264, yuv420p) of these frames at the rate of a clip, with the colours tagged alike.

    Sound is copied where MP4 carries its codec, and left out where not. A side of odd length gains one pixel, since
    yuv420p has none such.

    Args:
        frames: RGB, all of the clip's size.
        like: The clip.
    """
    with TemporaryDirectory() as folder, _container(like.source) as source:
        path = Path(folder) / "result.mp4"
        model = source.streams.video[0]
        sounds = [stream for stream in source.streams.audio if stream.codec_context.name in _SOUNDS]
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
            rate = Fraction(like.fps).limit_denominator(1001)
            picture = target.add_stream("libx264", rate=rate, options={"crf": "19", "preset": "veryfast"})
            picture.width, picture.height = like.width + like.width % 2, like.height + like.height % 2
            picture.pix_fmt = "yuv420p"
            space = picture.codec_context.colorspace = model.codec_context.colorspace
            copies = {sound.index: target.add_stream_from_template(sound) for sound in sounds}
            for packet in source.demux(sounds) if sounds else ():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
            for number, frame in enumerate(frames):
                shown = av.VideoFrame.from_ndarray(_even(frame), "rgb24")
                shown = shown.reformat(format="yuv420p", dst_colorspace=space)
                shown.pts, shown.time_base = number, 1 / rate
                target.mux(picture.encode(shown))
            target.mux(picture.encode(None))
        return path.read_bytes()
