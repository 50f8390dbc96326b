"""Typed options of the commands, in rooms with one purpose each."""
