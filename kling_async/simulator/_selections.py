"""
Selection sessions: which points are marked, and what the five calls on them answer.

Decides what depends on a session: its limits, its points, its end after 24 hours. Points are told apart exactly,
as floating-point numbers.
Source: https://klingai.com/document-api/api/video/multi-elements.md
"""

from base64 import b64encode
from functools import partial

from attrs import define, field

from . import _rules
from ._answers import RefusalError
from ._routes import Call
from ._scenes import Content, Drawn, Footage, Source, Spot
from ._shape import Shape
from ._shelf import KEPT, File
from ._world import Steps, World

Data = dict[str, object]


@define
class Session:
    """
    A session that is open.
    """

    session_id: str
    """Its id."""
    opened_at: float
    """On the simulator's clock."""
    source: Source
    """The clip."""
    footage: Footage
    """What the clip is."""
    marks: dict[int, tuple[Spot, ...]] = field(factory=dict)
    """Points by frame index; a frame without points is not in it."""

    def data(self, **more: object) -> Data:
        """
        What every answer about it begins with. Selection calls are free of charge, as third parties found.
        """
        return {"status": 0, "session_id": self.session_id, "final_unit_deduction": "0", **more}


@define
class Selections:
    """
    All sessions.
    """

    world: World
    """Ids, files, sight."""
    life: float
    """Seconds that a session lives, and the links of its previews with it."""
    sessions: dict[str, Session] = field(init=False, factory=dict)
    """Those that were opened and not dropped, by id."""

    def get(self, session_id: str, call: Call, now: float) -> Session:
        """
        A session that lives.

        Raises:
            RefusalError: There is none such, or its 24 hours are over.
        """
        session = self.sessions.get(session_id)
        if session is None or now - session.opened_at >= self.life:
            code = call.shape.lost_session
            raise RefusalError(code, f"session_id '{session_id:.60}' does not exist or has expired")
        return session

    def open(self, call: Call, now: float) -> Steps[Data]:
        """
        Answer init-selection.

        Raises:
            RefusalError: The source is not one clip that may be edited.
        """
        video_id, video_url = _rules.opening(_rules.as_object(call.body))
        source = self._by_id(video_id, now) if video_id is not None else self._by_url(video_url or "", now)
        source, footage = yield from self.world.aside(partial(self.world.sight.look, source))
        _rules.check_footage(footage, by_id=video_id is not None)
        session = Session(self.world.new_id(), now, source, footage)
        self.sessions[session.session_id] = session
        return session.data(
            fps=footage.fps,
            original_duration=round(footage.seconds * 1000),
            width=footage.width,
            height=footage.height,
            total_frame=footage.total_frames,
            normalized_video=self._put(call, f"{session.session_id}.mp4", source.content or b"", now),
        )

    def _by_id(self, video_id: str, now: float) -> Source:
        """
        A result of ours; what else the account holds cannot be known, so without eyes any id may be one.
        """
        source, made_at = self.world.videos.get(video_id, (None, now))
        if now - made_at > KEPT or (source is None and self.world.sight.heavy):
            raise RefusalError(1203, f"video_id '{video_id:.60}' does not exist or is older than 30 days")
        return source or Source(key=f"video {video_id}")

    def _by_url(self, video_url: str, now: float) -> Source:
        link = self.world.shelf.link(video_url)
        if link is None:
            return Source(key=video_url, url=video_url)
        file = self.world.shelf.reach(link, now)
        if file is None:
            raise RefusalError(1201, f"video_url '{video_url:.200}' can not be downloaded")
        return Source(key=f"file {link.name}", content=file.content, footage=file.footage)

    def _put(self, call: Call, name: str, content: Content, now: float) -> str:
        self.world.shelf.put(name, File(content, until=now + self.life))
        return self.world.shelf.url(call.origin, name, now)

    def add(self, call: Call, now: float) -> Steps[Data]:
        """
        Answer add-selection.

        Raises:
            RefusalError: The session, its frame or its limits do not allow the points.
        """
        marking = _rules.marking(_rules.as_object(call.body))
        session = self.get(marking.session_id, call, now)
        frame, before = marking.frame_index, session.marks.get(marking.frame_index, ())
        _check_frame(session, frame)
        for index, spot in enumerate(marking.spots):
            if spot in (*before, *marking.spots[:index]):
                raise RefusalError(1201, f"points: ({spot[0]!r}, {spot[1]!r}) is already selected on frame {frame}")
        if len(before) + len(marking.spots) > _rules.POINTS_MOST:
            raise RefusalError(1201, f"points: more than {_rules.POINTS_MOST} on frame {frame}")
        if frame not in session.marks and len(session.marks) >= _rules.FRAMES_MOST:
            raise RefusalError(1201, f"frame_index: more than {_rules.FRAMES_MOST} frames are selected")
        session.marks[frame] = before + marking.spots
        return (yield from self._marked(call, session, frame))

    def delete(self, call: Call, now: float) -> Steps[Data]:
        """
        Answer delete-selection.

        Raises:
            RefusalError: The session does not have all of the points.
        """
        marking = _rules.marking(_rules.as_object(call.body))
        session = self.get(marking.session_id, call, now)
        frame = marking.frame_index
        _check_frame(session, frame)
        left = list(session.marks.get(frame, ()))
        for spot in marking.spots:
            if spot not in left:
                raise RefusalError(1201, f"points: ({spot[0]!r}, {spot[1]!r}) is not selected on frame {frame}")
            left.remove(spot)
        session.marks[frame] = tuple(left)
        if not left:
            del session.marks[frame]
        return (yield from self._marked(call, session, frame))

    def _marked(self, call: Call, session: Session, frame: int) -> Steps[Data]:
        spots, footage = session.marks.get(frame, ()), session.footage
        masks: list[Data] = []
        if spots:
            draw = partial(self.world.sight.draw, session.source, footage, frame, spots)
            masks.append(_mask((yield from self.world.aside(draw)), footage, call.shape))
        return session.data(res={"frame_index": frame, "rle_mask_list": masks})

    def clear(self, call: Call, now: float) -> Data:
        """
        Answer clear-selection.

        Raises:
            RefusalError: There is no such session.
        """
        session = self.get(_rules.session(_rules.as_object(call.body)), call, now)
        session.marks.clear()
        return session.data()

    def preview(self, call: Call, now: float) -> Steps[Data]:
        """
        Answer preview-selection.

        Raises:
            RefusalError: There is no such session, or nothing is marked in it.
        """
        session = self.get(_rules.session(_rules.as_object(call.body)), call, now)
        if not session.marks:
            raise RefusalError(1201, "nothing is selected in this session")
        watch = partial(self.world.sight.preview, session.source, session.footage, dict(session.marks))
        rendered = yield from self.world.aside(watch)
        name = self.world.new_id()
        return session.data(
            res={
                "video": self._put(call, f"{name}.mp4", rendered.video, now),
                "video_cover": self._put(call, f"{name}.png", rendered.cover, now),
                "tracking_output": self._put(call, f"{name}.json", rendered.tracking, now),
            }
        )


def _mask(drawn: Drawn, footage: Footage, shape: Shape) -> Data:
    size = shape.sides(footage.height, footage.width)
    png = {"size": size, "base64": b64encode(drawn.png).decode()}
    return {"object_id": 0, "rle_mask": {"size": size, "counts": drawn.counts}, "png_mask": png}


def _check_frame(session: Session, frame: int) -> None:
    if frame >= session.footage.total_frames:
        raise RefusalError(
            1201, f"frame_index value '{frame}' is invalid: total_frame is {session.footage.total_frames}"
        )
