"""
Measurements, side by side with a rival in the same run: `python -m benchmarks` prints the table.
"""
