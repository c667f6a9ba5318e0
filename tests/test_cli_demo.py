"""
The demo as a whole: all eight calls, real sockets, real pictures.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kling_async.cli import _demo
from kling_async.simulator import Simulator
from kling_async.simulator._footage import open_clip
from tests.commanding import CLIP, alone, commands

LEFT_BEHIND = ["ATTRIBUTION.txt", "contact-sheet.png", "marked-frame.png", "mask.png", "preview.mp4", "result.mp4"]


def pixels(path):
    """
    A picture as numbers.
    """
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_the_demo_goes_through_everything(capsys, tmp_path, monkeypatch):
    """
    The demo calls all eight endpoints, removes the stones, and leaves every file that it names.
    """
    home = alone(monkeypatch, tmp_path)
    monkeypatch.delenv("COMETAPI_KEY")
    (home / "kling-demo").mkdir()
    (home / "kling-demo" / "mask.png").write_bytes(b"old")
    made = []
    monkeypatch.setattr(_demo, "Simulator", lambda **given: made.append(Simulator(**given)) or made[0])
    ended = commands(capsys)("demo", "--json")
    assert (0, LEFT_BEHIND) == (ended.code, sorted(path.name for path in (home / "kling-demo").iterdir()))
    called = {seen.endpoint for seen in made[0].log}
    assert {"init", "add", "delete", "clear", "preview", "create", "get", "list", "media"} == called
    assert set(LEFT_BEHIND) == {Path(path).name for path in ended.event("files")["files"].values()}
    assert {"session", "mask", "pictures", "preview", "edit", "download"} == set(ended.event("files")["seconds"])
    stones, both, again, afresh = (event["area"] for event in ended.events if event["event"] == "mask")
    assert stones == again == afresh < both
    for said in ("session", "mask", "preview", "edit", "download", "(c) 2008 Blender Foundation", "CC BY 3.0"):
        assert said in ended.err
    assert "CC BY 3.0" in (home / "kling-demo" / "ATTRIBUTION.txt").read_text()

    before, marked, mask = CLIP, home / "kling-demo" / "marked-frame.png", home / "kling-demo" / "mask.png"
    frame = open_clip(before).frame(40).astype(int)
    assert frame.shape == pixels(marked).shape == pixels(mask).shape
    assert 0 < np.any(pixels(marked) != frame, axis=2).mean() < 0.01 < np.any(pixels(mask) != frame, axis=2).mean()
    after = open_clip(home / "kling-demo" / "result.mp4")
    assert (96, 1280, 720) == (after.total_frames, after.width, after.height)
    change = np.abs(after.frame(40).astype(int) - frame).mean(axis=2)
    stones, sky = change[330:440, 850:1150], change[20:120, 1150:]
    assert stones.mean() > 10 * sky.mean()
