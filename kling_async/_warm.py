"""
All that a first edit needs, loaded and built ahead of it.

Decides what that is. Refuses to start anything: no thread, no loop, no connection; whoever forks after it shares it.
"""

from importlib import import_module
from importlib.util import find_spec

from ._codec import VALUES, converter
from ._open import load
from .masks import Mask

__all__ = ("warm_up",)


def warm_up(*, pixels: bool = False) -> None:
    """
    Load all that a first edit needs, some 0.2 seconds of work, so that neither a caller nor an event loop waits for it.

    For the start of a program; a web server does it before it forks its workers, which then share the memory. It
    starts no thread and no loop and opens no connection. Done again, it costs next to nothing. Without it, things are
    loaded as they are needed: most of them in a thread, while a client opens.

    Args:
        pixels: Also what `Mask.to_array` and `Mask.overlay` need, with the extra `masks`. numpy may start threads.

    Raises:
        InvalidInputError: Pixels are asked for, and numpy is not installed.

    Example:
        >>> warm_up()
    """
    import_module(f"{__package__}.batch")  # with it come the client and the selection
    load()
    for kind in VALUES:
        converter().get_structure_hook(kind)
        converter().get_unstructure_hook(kind)
    if pixels:
        Mask(object_id=0, height=1, width=1, counts="01").to_array()
    import_module("encodings.idna")  # which spells host names to be looked up
    for package, used in (("jwt", "jwt"), *((("PIL", "PIL.Image"),) if pixels else ())):
        if find_spec(package) is not None:
            import_module(used)
