"""
The service, in this process: for tests, for the demo, and for trying things without a key.
"""
