"""Authenticators: who may log in, and under what name."""
