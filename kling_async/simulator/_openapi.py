"""
The simulator's own OpenAPI 3.1 document: the eight calls with every refusal and bound.

Decides how calls, schemas and refusals are put together; where they are is `_routes.py`'s, what they hold
`_schemas.py`'s, which codes there are `_answers.py`'s. It describes a simulator of the default `Shape`; the published
documents of CometAPI describe three of the calls, and answers of status 200 alone.
"""

from http import HTTPStatus

from attrs import frozen

from . import _schemas
from ._answers import REFUSALS
from ._routes import CALLS
from ._schemas import Schema

_BEARER = "bearerAuth"
_CLIP = "https://example.com/clip.mp4"
_SESSION = {"session_id": "847570360458960960"}
_POINTS = _SESSION | {"frame_index": 0, "points": [{"x": 0.42, "y": 0.61}]}
_EDIT = _SESSION | {"edit_mode": "removal", "prompt": "Delete the bird from <<<video_1>>>", "duration": "5"}


@frozen(kw_only=True)
class _Part:
    """
    What the document says of a call beyond its method and path.
    """

    summary: str
    """What it is for."""
    answer: str
    """The schema of its data."""
    body: str | None = None
    """The schema of its body."""
    example: object = None
    """A body."""


_PARTS = {
    "init": _Part(summary="Open a session", body="Init", example={"video_url": _CLIP}, answer="Opened"),
    "add": _Part(summary="Mark points on a frame", body="Marking", example=_POINTS, answer="Marked"),
    "delete": _Part(summary="Take points away again", body="Marking", example=_POINTS, answer="Marked"),
    "clear": _Part(summary="Take all points away", body="Session", example=_SESSION, answer="Cleared"),
    "preview": _Part(summary="Draw the mask on every frame", body="Session", example=_SESSION, answer="Previewed"),
    "create": _Part(summary="Create the edit: the call that costs", body="Create", example=_EDIT, answer="Created"),
    "get": _Part(summary="Look at a task", answer="Task"),
    "list": _Part(summary="List tasks, newest first", answer="Tasks"),
}


def document() -> dict[str, object]:
    """
    The whole document.
    """
    paths: dict[str, dict[str, object]] = {}
    for name, (method, path) in CALLS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(name, _PARTS[name])
    for path, item in paths.items():
        if "{id}" in path:
            item["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": _schemas.task_id()}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Simulator of Kling's multi-elements video editing", "version": "1.0.0"},
        "servers": [{"url": "/kling"}, {"url": "/"}],
        "security": [{_BEARER: []}],
        "paths": paths,
        "components": {
            "securitySchemes": {_BEARER: {"type": "http", "scheme": "bearer"}},
            "schemas": _components(),
            "responses": {f"Refused{status}": _refusals(status) for status in _statuses()} | {"NoId": _no_id()},
        },
    }


def _operation(name: str, part: _Part) -> dict[str, object]:
    answers: dict[str, object] = {"200": _json("Done.", _reference("schemas", part.answer))}
    answers |= {str(status): _reference("responses", f"Refused{status}") for status in _statuses()}
    operation: dict[str, object] = {"operationId": name, "summary": part.summary, "responses": answers}
    if part.body is not None:
        content = {"schema": _reference("schemas", part.body), "example": part.example}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
        large = {"description": "The body is larger than the server reads.", "content": {"text/plain": {}}}
        answers["413"] = large
    if name == "get":
        answers["405"] = _reference("responses", "NoId")
    if name == "list":
        pages = _schemas.pages().items()
        operation["parameters"] = [{"name": name, "in": "query", "schema": schema} for name, schema in pages]
    return operation


def _components() -> dict[str, Schema]:
    tasks: Schema = {"type": "array", "items": _reference("schemas", "TaskData")}
    return {
        "Init": _schemas.init(),
        "Session": _schemas.session(),
        "Marking": _schemas.marking(),
        "Create": _schemas.creation(),
        "Opened": _schemas.success(_schemas.opened()),
        "Marked": _schemas.success(_schemas.marked()),
        "Cleared": _schemas.success(_schemas.selection()),
        "Previewed": _schemas.success(_schemas.previewed()),
        "Created": _schemas.success(_schemas.created()),
        "Task": _schemas.success(_reference("schemas", "TaskData")),
        "Tasks": _schemas.success(tasks),
        "TaskData": _schemas.task(),
    }


def _statuses() -> list[int]:
    return sorted({status for status, _ in REFUSALS.values()})


def _refusals(status: int) -> dict[str, object]:
    """
    All that is refused with a status, code by code.
    """
    words = {code: text for code, (usual, text) in REFUSALS.items() if usual == status}
    said = "; ".join(f"{code}: {text}" for code, text in words.items())
    return _json(f"{HTTPStatus(status).phrase}. {said}.", _schemas.refusal(*words))


def _no_id() -> dict[str, object]:
    said = _json("The id is the last part of another call's path, which has other methods.", _schemas.refusal(1202))
    return said | {"headers": {"Allow": {"required": True, "schema": {"type": "string"}}}}


def _json(description: str, schema: Schema) -> dict[str, object]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}
