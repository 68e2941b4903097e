"""Looks at both sides of the wire, and says what is wrong, how it knows, and what to do."""
