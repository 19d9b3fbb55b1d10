"""`vtprune plan`: the machines that a traffic needs, with and without pruning, by simulation."""

from vtprune_server.command.plan.report import add_plan, plan

__all__ = ["add_plan", "plan"]
