"""
The script's door: it says what is missing where the extra `cli` is not installed, and imports nothing heavy itself.
"""

import sys
from collections.abc import Sequence

__all__ = ("main",)


def main(tokens: Sequence[str] | None = None) -> int:
    """
    Run the command line and return its exit code.

    Args:
        tokens: The arguments; by default the process's own.
    """
    try:
        return _entered(sys.argv[1:] if tokens is None else tokens)
    except KeyboardInterrupt:
        # Before a command has begun, or after it has ended: commands say themselves what they leave running.
        return 130


def _entered(tokens: Sequence[str]) -> int:
    try:
        import cyclopts  # noqa: F401 - whether it is there
        import rich  # noqa: F401 - the same
    except ImportError:
        print("kling-async needs its extra: pip install 'kling-async[cli]'", file=sys.stderr)
        return 2
    from ._app import entry

    return entry(tokens)
