"""The command `vtprune`: what a person asks of methods and of a running server."""

from vtprune_server.command.parser import main

__all__ = ["main"]
