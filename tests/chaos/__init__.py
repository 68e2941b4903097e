"""Faults on purpose: a simulated device, real Ray, killed processes, photos with known answers."""
