"""What two installations of rayface must agree on: the types that travel, their encoding, their digest."""
