"""One call's story, in the backend's process: admission, preprocessing, a detector, or else the CPU."""
