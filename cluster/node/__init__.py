"""Keeps `ray start` up on a machine, and knows what a machine needs for it."""
