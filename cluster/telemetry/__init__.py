"""Metrics, logs and spans: what happened, for people who watch."""
