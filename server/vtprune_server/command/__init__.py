"""The command `vtprune`: questions about methods and to a running server."""

from vtprune_server.command.parser import main

__all__ = ["main"]
