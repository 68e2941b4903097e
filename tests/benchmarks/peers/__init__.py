"""The same detector behind other servers, each written as its own documentation shows.

Each module runs in an environment of its own: `python -m tests.benchmarks.peers.NAME PORT NUM_WORKERS`. It
takes a JPEG, decodes and shrinks it with cv2, and runs the graph that we run too. So only serving differs.
"""
