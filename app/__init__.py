"""The backend itself, standing in for yours: asks `cluster`, and nothing else. Not in the wheel."""
