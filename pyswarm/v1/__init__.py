"""Compiled from proto/ by proto/generate.py."""
