"""The sides of a comparison. Each has a process of its own: both stay up, and one is loaded at a time."""
