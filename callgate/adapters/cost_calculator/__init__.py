"""Computes holds and costs."""

from callgate.adapters.cost_calculator.calculator import PRICE_CHANGE_SLACK, CostCalculator

__all__ = ["PRICE_CHANGE_SLACK", "CostCalculator"]
