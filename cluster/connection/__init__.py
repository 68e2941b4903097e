"""The process that is Ray's driver, and the backend's way to it."""
