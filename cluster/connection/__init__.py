"""The driver process, and the backend's connection to it."""
