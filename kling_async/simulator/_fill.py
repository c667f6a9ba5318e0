"""
One still picture with a hole, and what may well be behind it: exemplar-based inpainting, coarse to fine.

Decides which patch of the known picture stands in for each pixel of the hole. Knows nothing of clips, frames or
masks that move. Every pixel of the hole is explained by patches copied from elsewhere (PatchMatch: propagate, then
look around at random), neighbouring patches vote for its colour, and both are repeated from a thumbnail up to full
size. Three things keep the copies sensible: the world is layered from top to bottom, so the first guess and a mild
penalty prefer what is found at the same height; the large shapes of that guess steer the search; and a patch that
has been copied already costs more, so that no tuft of grass is stamped in a row.
"""

from collections.abc import Sequence
from math import ceil, log

import cv2
import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ._halt import heed

_Pixels = NDArray[np.uint8]
_Plane = NDArray[np.bool_]
_Floats = NDArray[np.float32]
_Ints = NDArray[np.int64]

_R = 3
_SPAN = range(-_R, _R + 1)
_STEP = 1.5
_SQUASH = 8
_THINNEST = 14
_FEWEST = 16
_SEARCHED = 150_000
_BLOCK = 1 << 13
_HEIGHT_COST = 4.0 * 255
_LAYOUT_COST = 0.4
_REUSE_COST = 150.0
_GRADIENT = 1.5
_SOFTNESS = 1.0
_ROUNDS = (24, 5)
_REACH = (8, 3)


def _shrunk(plane: _Floats, size: tuple[int, int]) -> _Floats:
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _nearest(known: _Plane) -> _Ints:
    """
    For each pixel the flat index of the known pixel nearest to it.
    """
    unknown = (~known).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    names = np.zeros(int(labels.max()) + 1, np.int64)
    names[labels[known]] = np.flatnonzero(known)
    return np.asarray(names[labels], dtype=np.int64)


def _layout(picture: _Floats, known: _Plane) -> _Floats:
    """
    A first guess: each unknown pixel takes the nearest known colour, where sideways counts for little.
    """
    height, width = known.shape
    size = (max(4, round(width / _SQUASH)), height)
    share = _shrunk(known.astype(np.float32), size)
    colours = _shrunk(picture * known[..., None], size) / np.maximum(share, 1e-3)[..., None]
    taken = colours.reshape(-1, 3)[_nearest(share > min(0.5, float(share.max()) / 2))]
    guess = cv2.resize(taken, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(known[..., None], picture, guess).astype(np.float32)


@frozen(kw_only=True)
class _Case:
    """
    The picture, its hole and what of it may be trusted, at one size.
    """

    picture: _Floats
    "Colours, h x w x 3."
    hole: _Plane
    "What is to be filled."
    known: _Plane
    "What may be copied; a pixel in neither plane lies outside of the picture."

    @property
    def size(self) -> tuple[int, int]:
        """
        Width and height.
        """
        return self.hole.shape[1], self.hole.shape[0]

    def at(self, scale: float) -> "_Case":
        """
        The same case, smaller.

        Args:
            scale: Of both sides, at most 1.
        """
        if scale == 1:
            return self
        size = (max(8, round(self.size[0] * scale)), max(8, round(self.size[1] * scale)))
        hole = _shrunk(self.hole.astype(np.float32), size) > 0.02
        known = (_shrunk(self.known.astype(np.float32), size) > 0.98) & ~hole
        return _Case(picture=_shrunk(self.picture, size), hole=hole, known=known)


@define
class _Search:
    """
    The patches copied into the hole at one size, and how well they fit.

    All planes carry a border of one patch radius, and a place is a flat index into such a plane.
    """

    case: _Case
    "What is filled."
    rng: np.random.Generator = field(repr=False)
    "The only chance in it."
    guide: tuple[_Floats, _Floats]
    "Large shapes: of the known picture (by source), of the first guess (by target)."
    width: int = field(init=False)
    "Of a padded plane."
    image: _Floats = field(init=False)
    "Colours of each place, filled in as the vote goes."
    channels: list[_Floats] = field(init=False)
    "What patches are compared by: three colours, two gradients."
    targets: _Ints = field(init=False)
    "Places whose patch touches the hole."
    inside: _Ints = field(init=False)
    "Places of the hole."
    numbers: _Ints = field(init=False)
    "For each place its number among the targets, or -1."
    sources: _Plane = field(init=False)
    "Places whose whole patch is known."
    snap: _Ints = field(init=False)
    "For each place the nearest source."
    around: _Ints = field(init=False)
    "Steps to the places of a patch."
    belief: _Floats = field(init=False)
    "How much each place counts: less, the deeper in the hole."
    trust: _Floats = field(init=False)
    "The same, summed up over each target's patch."
    used: _Floats = field(init=False)
    "The price of copying from a place again."
    chosen: _Ints = field(init=False)
    "For each target the source that it copies."
    costs: _Floats = field(init=False)
    "How badly each choice fits."

    def __attrs_post_init__(self) -> None:
        case = self.case
        patch = np.ones((2 * _R + 1, 2 * _R + 1), np.uint8)
        self.width = case.size[0] + 2 * _R
        self.image = np.pad(case.picture, ((_R, _R), (_R, _R), (0, 0)), mode="edge").reshape(-1, 3)
        hole = np.pad(case.hole, _R)
        paper = np.pad(case.hole | case.known, _R)
        self.inside = np.flatnonzero(hole)
        self.targets = np.flatnonzero((cv2.dilate(hole.astype(np.uint8), patch) > 0) & paper)
        self.numbers = np.full(hole.size, -1, np.int64)
        self.numbers[self.targets] = np.arange(len(self.targets))
        sources = cv2.erode(np.pad(case.known, _R).astype(np.uint8), patch) > 0
        self.sources = sources.ravel()
        self.snap = _nearest(sources).ravel()
        steps = np.array(_SPAN)
        self.around = (steps[:, None] * self.width + steps).ravel()
        depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)
        belief = (np.where(hole, np.maximum(0.15, 1.1**-depth), 1) * paper).astype(np.float32)
        self.belief = belief.ravel()
        around = np.asarray(cv2.boxFilter(belief, -1, patch.shape, normalize=False), dtype=np.float32)
        self.trust = around.ravel()[self.targets]

    def start(self, places: _Ints) -> None:
        """
        Take the sources nearest to these places as the first choice.

        Args:
            places: One for each target.
        """
        self.chosen = self.snap[np.clip(places, 0, self.snap.size - 1)]

    def measure(self) -> None:
        """
        Bring what patches are compared by up to date with the colours.
        """
        grey = self.image.mean(1).reshape(-1, self.width)
        slopes = [cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3, scale=_GRADIENT / 4) for axis in ((1, 0), (0, 1))]
        self.channels = [np.ascontiguousarray(self.image[:, c]) for c in range(3)]
        self.channels += [np.asarray(slope, dtype=np.float32).ravel() for slope in slopes]
        copies = np.bincount(self.chosen, minlength=self.snap.size).astype(np.float32).reshape(-1, self.width)
        again = cv2.blur(copies, (2 * _R + 1, 2 * _R + 1)) - 1
        self.used = (_REUSE_COST * np.maximum(again, 0)).astype(np.float32).ravel()
        self.costs = self._cost(np.arange(len(self.targets)), self.chosen)

    def _cost(self, which: _Ints, places: _Ints) -> _Floats:
        blocks = range(0, len(which), _BLOCK)
        costs = [self._block(which[at : at + _BLOCK], places[at : at + _BLOCK]) for at in blocks]
        return np.concatenate(costs) if costs else np.zeros(0, np.float32)

    def _block(self, which: _Ints, places: _Ints) -> _Floats:
        targets = self.targets[which]
        theirs = places[:, None] + self.around
        ours = targets[:, None] + self.around
        apart = np.zeros(theirs.shape, np.float32)
        for channel in self.channels:
            difference = channel[theirs] - channel[ours]
            apart += difference * difference
        shape = self.guide[0][places] - self.guide[1][targets]
        rows = (places // self.width - targets // self.width) / self.case.size[1]
        price = (apart * self.belief[ours]).sum(1) / self.trust[which] + self.used[places]
        return np.asarray(price + _LAYOUT_COST * (shape * shape).sum(1) + _HEIGHT_COST * rows**2, dtype=np.float32)

    def _offer(self, which: _Ints, places: _Ints) -> None:
        costs = self._cost(which, places)
        better = costs < self.costs[which]
        self.chosen[which[better]] = places[better]
        self.costs[which[better]] = costs[better]

    def improve(self, reach: float) -> None:
        """
        Offer every target its neighbours' choices, then some at random around its own.

        Args:
            reach: How far to look, in pixels; a third as far each time.
        """
        for step in (1, self.width, -1, -self.width):
            neighbours = self.numbers[self.targets - step]
            places = np.where(neighbours >= 0, self.chosen[neighbours] + step, 0)
            places = np.clip(places, 0, self.snap.size - 1)
            which = np.flatnonzero((neighbours >= 0) & self.sources[places] & (places != self.chosen))
            self._offer(which, places[which])
        everyone = np.arange(len(self.targets))
        while reach >= 1:
            across, down = self.rng.uniform(-reach, reach, (2, len(everyone)))
            places = self.chosen + np.rint(across).astype(np.int64) + np.rint(down / 2).astype(np.int64) * self.width
            self._offer(everyone, self.snap[np.clip(places, 0, self.snap.size - 1)])
            reach /= 3

    def vote(self) -> None:
        """
        Colour the hole by what the patches around each pixel would put there, the best of them first.
        """
        spread = float(np.percentile(self.costs, 40)) + 1e-3
        votes = np.exp(-self.costs / (2 * spread)) * self.trust + 1e-6
        colours = np.zeros((len(self.inside), 3), np.float32)
        total = np.zeros(len(self.inside), np.float32)
        for step in self.around:
            voters = self.numbers[self.inside + step]
            row, column = divmod(int(step) + _R * self.width + _R, self.width)
            nearness = np.exp(-((row - _R) ** 2 + (column - _R) ** 2) / 4.5)
            vote = np.where(voters >= 0, votes[voters] * nearness, 0).astype(np.float32)
            colours += self.image[self.chosen[voters] - step] * vote[:, None]
            total += vote
        self.image[self.inside] = colours / total[:, None]

    def result(self) -> _Floats:
        """
        The picture as it stands.
        """
        return np.asarray(self.image.reshape(-1, self.width, 3)[_R:-_R, _R:-_R])

    def seams(self) -> _Floats:
        """
        1 where patches copied from different places meet, less next to it, h x w.
        """
        away = np.zeros(self.snap.size, np.int64)
        away[self.targets] = self.chosen - self.targets
        plane = away.reshape(-1, self.width)
        apart = (plane != np.roll(plane, 1, axis=0)) | (plane != np.roll(plane, 1, axis=1))
        soft = cv2.GaussianBlur(apart.astype(np.float32), (0, 0), 1.0)[_R:-_R, _R:-_R]
        return np.asarray(np.minimum(1, 2 * soft), dtype=np.float32)

    def grown(self, size: tuple[int, int]) -> _Ints:
        """
        For every pixel of a larger picture: how far away its source lies, as rows and columns, 2 x h x w.

        Args:
            size: Width and height of the larger picture.
        """
        away = np.stack([self.chosen // self.width, self.chosen % self.width]).astype(np.float32)
        away -= np.stack([self.targets // self.width, self.targets % self.width])
        near = _nearest((self.numbers >= 0).reshape(-1, self.width))[_R:-_R, _R:-_R]
        own = away[:, self.numbers[near]]
        ratios = (size[1] / self.case.size[1], size[0] / self.case.size[0])
        planes = [cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in own]
        return np.stack([np.rint(plane * ratio) for plane, ratio in zip(planes, ratios, strict=True)]).astype(np.int64)


def _guides(case: _Case, guess: _Floats, reach: float) -> tuple[_Floats, _Floats]:
    known = case.known.astype(np.float32)
    share = cv2.GaussianBlur(known, (0, 0), reach)
    theirs = cv2.GaussianBlur(case.picture * known[..., None], (0, 0), reach) / np.maximum(share, 1e-3)[..., None]
    shapes = cv2.resize(guess, case.size, interpolation=cv2.INTER_LINEAR)
    ours = cv2.GaussianBlur(np.where(case.known[..., None], case.picture, shapes), (0, 0), reach)
    border = ((_R, _R), (_R, _R), (0, 0))
    first, second = (np.pad(plane, border, mode="edge").reshape(-1, 3) for plane in (theirs, ours))
    return first.astype(np.float32), second.astype(np.float32)


def _scales(case: _Case) -> Sequence[float]:
    thick = 2 * float(cv2.distanceTransform(np.pad(case.hole, 1).astype(np.uint8), cv2.DIST_L2, 5).max())
    steps = ceil(log(max(thick / _THINNEST, 1), _STEP))
    return [_STEP**-step for step in range(steps, -1, -1)]


def _begin(small: _Case, guess: _Floats, guides: tuple[_Floats, _Floats], rng: np.random.Generator) -> _Search:
    begun = _Case(picture=guess, hole=small.hole, known=small.known)
    search = _Search(begun, rng, guides)
    search.start(search.targets + rng.integers(-3, 4, len(search.targets)))
    return search


def _finer(small: _Case, before: _Search, guides: tuple[_Floats, _Floats], rng: np.random.Generator) -> _Search:
    upscaled = cv2.resize(before.result(), small.size, interpolation=cv2.INTER_CUBIC)
    picture = np.where(small.hole[..., None], upscaled, small.picture).astype(np.float32)
    search = _Search(_Case(picture=picture, hole=small.hole, known=small.known), rng, guides)
    rows, columns = before.grown(small.size)
    steps = np.pad(rows * search.width + columns, _R).ravel()
    search.start(search.targets + steps[search.targets])
    return search


def _settle(search: _Search, rounds: int, reach: float) -> None:
    """
    Search and vote in turn; a picture too large to search is only painted by what was found at the size before.
    """
    affordable = len(search.targets) <= _SEARCHED
    for _ in range(rounds if affordable else 1):
        heed()
        search.measure()
        if affordable:
            search.improve(reach)
        search.vote()


def _softened(search: _Search) -> _Floats:
    """
    The picture with its seams as soft as a camera would have drawn them.
    """
    sharp, share = search.result(), search.seams()[..., None]
    soft = cv2.GaussianBlur(sharp, (0, 0), _SOFTNESS)
    return np.asarray(sharp + (soft - sharp) * share, dtype=np.float32)


def _workable(case: _Case) -> bool:
    patch = np.ones((2 * _R + 1, 2 * _R + 1), np.uint8)
    return int((cv2.erode(np.pad(case.known, 1).astype(np.uint8), patch) > 0).sum()) >= _FEWEST


def fill(picture: _Pixels, hole: _Plane, outside: _Plane | None = None, *, seed: int = 0) -> _Pixels:
    """
    The picture with its hole filled from the rest of it.

    Args:
        picture: Colours, h x w x 3.
        hole: What is to be filled, h x w.
        outside: Pixels that are neither known nor wanted, h x w.
        seed: Of the search; the same seed gives the same picture.

    Returns:
        A new picture, equal to the old one outside of the hole. Where nothing is known it stays as it is; where
        too little is known to copy patches from, each pixel takes the nearest known colour.
    """
    known = ~hole if outside is None else ~(hole | outside)
    if not hole.any() or not known.any():
        return picture.copy()
    guess = _layout(picture.astype(np.float32), known)
    case = _Case(picture=guess, hole=hole, known=known)
    rng = np.random.default_rng(seed)
    tall = int(np.ptp(np.flatnonzero(hole.any(1)))) + 1
    scales = _scales(case)
    search: _Search | None = None
    filled = guess
    for number, scale in enumerate(scales):
        small = case.at(scale)
        if not _workable(small):
            continue
        done = number / max(1, len(scales) - 1)
        if search is None:
            guess = _layout(small.picture, small.known)
        guides = _guides(small, guess, 0.04 * tall * scale + 0.6)
        search = _begin(small, guess, guides, rng) if search is None else _finer(small, search, guides, rng)
        reach = max(small.size) / 2 if number < 2 else _REACH[scale == 1]
        _settle(search, round(_ROUNDS[0] + (_ROUNDS[1] - _ROUNDS[0]) * done), reach)
        filled = _softened(search)
    whole = cv2.resize(filled, case.size, interpolation=cv2.INTER_LINEAR)
    return np.where(hole[..., None], np.clip(np.rint(whole), 0, 255).astype(np.uint8), picture)
