"""Faults on purpose: a simulated device, real Ray, processes killed, photos whose answers are known."""
