"""
A slow, obvious decoder of COCO's run lengths, written from the format alone: what ours is held against.

The format: a number is a group of characters from code 48 up, each with five bits, the lowest first; the sixth bit says
that another character follows, and the highest of all the bits is the sign. The first three numbers are run lengths,
each further one is how much its run differs from the run two before. Runs fill columns, zeros and ones in turn.
"""

DIGITS = 7
"""Characters of one number at most: no run of a mask of 8192 x 8192 needs more."""


def slow_runs(text):
    """
    The run lengths, or None where the text is not of the format.
    """
    if any(not 48 <= ord(character) < 112 for character in text):
        return None
    groups, group = [], []
    for character in text:
        group.append(f"{ord(character) - 48:06b}")
        if group[-1][0] == "0":
            groups.append(group)
            group = []
    if group or any(len(each) > DIGITS for each in groups):
        return None
    runs = []
    for each in groups:
        bits = "".join(six[1:] for six in reversed(each))
        number = int(bits, 2)
        if bits[0] == "1":
            number -= 2 ** len(bits)
        if len(runs) >= 3:
            number += runs[-2]
        runs.append(number)
    return runs


def slow_pixels(text, height, width):
    """
    The mask as rows of booleans, or None where the runs do not fill it exactly.
    """
    runs = slow_runs(text)
    if runs is None or any(run < 0 for run in runs) or sum(runs) != height * width:
        return None
    flat = []
    for place, run in enumerate(runs):
        flat += [place % 2 == 1] * run
    return [[flat[column * height + row] for column in range(width)] for row in range(height)]


def slow_box(rows):
    """
    Left, top, right, bottom of what is set; all zero where nothing is.
    """
    spots = [(column, row) for row, line in enumerate(rows) for column, pixel in enumerate(line) if pixel]
    if not spots:
        return (0, 0, 0, 0)
    columns, lines = [column for column, _ in spots], [row for _, row in spots]
    return (min(columns), min(lines), max(columns) + 1, max(lines) + 1)
