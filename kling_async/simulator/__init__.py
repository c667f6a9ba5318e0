"""
The service, in this process: for tests, for the demo, and for trying things without a key.
"""

from ._faults import Fault
from ._log import Seen
from ._scenes import Footage
from ._shape import Shape
from ._simulator import Simulator

__all__ = ("Fault", "Footage", "Seen", "Shape", "Simulator")
