"""`vtprune plan`: simulates how many replicas a load needs, with and without pruning."""

from vtprune_server.command.plan.report import add_plan, plan

__all__ = ["add_plan", "plan"]
