"""
All targets, by the names that the command line takes.
"""

from tests.fuzz.deliveries import BODY, HEADERS
from tests.fuzz.pictures import MASK
from tests.fuzz.replies import ENVELOPE

TARGETS = {"envelope": ENVELOPE, "mask": MASK, "webhook-body": BODY, "webhook-headers": HEADERS}
