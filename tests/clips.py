"""
Small clips whose truth is known: a disc on a textured wall, seen by a drifting camera.
"""

import io

import av
import cv2
import numpy as np
from attrs import frozen
from numpy.typing import NDArray


def texture(height, width, seed=3):
    """
    Smooth coloured blotches with some grain, RGB.
    """
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.random((height // cell + 2, width // cell + 2, 3)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        * weight
        for cell, weight in ((40, 110), (12, 50), (5, 30))
    ]
    return np.clip(20 + sum(layers), 0, 255).astype(np.uint8)


@frozen
class Scene:
    """
    Frames, the clean frames behind the object, and the object's true masks.
    """

    frames: list[NDArray[np.uint8]]
    clean: list[NDArray[np.uint8]]
    masks: list[NDArray[np.bool_]]
    video: bytes


def movie(frames, *, rate=24, space=2, sound=False, codec="libx264", form="mp4", **options):
    """
    Frames as the bytes of a video file.
    """
    file = io.BytesIO()
    height, width = frames[0].shape[:2]
    with av.open(file, "w", format=form, options=options) as target:
        care = {"crf": "12", "preset": "ultrafast"} if codec == "libx264" else {}
        stream = target.add_stream(codec, rate=rate, options=care)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if codec == "libx264" else "rgb24"
        stream.codec_context.colorspace = space
        voice = target.add_stream("aac", rate=44100, layout="mono") if sound else None
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture = picture.reformat(format=stream.pix_fmt, dst_colorspace=space)
            picture.pts = number
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
        if voice:
            for block in range(len(frames) * 44100 // int(rate) // 1024):
                tone = np.sin(np.arange(1024) / 20)[None].astype(np.float32)
                samples = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
                samples.rate, samples.pts = 44100, block * 1024
                target.mux(voice.encode(samples))
            target.mux(voice.encode(None))
    return file.getvalue()


def scene(*, frames=16, size=(320, 180), drift=(1.5, 0.5), motion=(0.0, 0.0), start=(150, 90), radius=24, rate=24):
    """
    A disc (`start` in the first frame, `motion` on the wall) before a wall that drifts by `drift` in each frame.
    """
    width, height = size
    wall = texture(height + 120, width + 160 + int(abs(drift[0]) * frames))
    shown, clean, masks = [], [], []
    for number in range(frames):
        across, down = (60 - drift[0] * number, 50 - drift[1] * number)
        view = np.array([[1, 0, -across], [0, 1, -down]])
        behind = cv2.warpAffine(wall, view, size, flags=cv2.INTER_CUBIC)
        x, y = (start[axis] + (drift[axis] + motion[axis]) * number for axis in (0, 1))
        rows, columns = np.mgrid[:height, :width]
        away = np.hypot(columns - x, rows - y)
        share = np.clip(radius - away + 0.5, 0, 1)[..., None]
        paint = np.stack([235 + 0 * away, 40 + 30 * (rows > y), 40 + 0 * away], axis=2)
        shown.append(np.rint(behind * (1 - share) + paint * share).astype(np.uint8))
        clean.append(behind)
        masks.append(away < radius)
    return Scene(shown, clean, masks, movie(shown, rate=rate))


def overlap(one, two):
    """
    Intersection over union of two masks.
    """
    return float((one & two).sum() / (one | two).sum())
