"""What Ray runs for us, and where: detectors, their leases, and the callback probe."""
