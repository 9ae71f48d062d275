"""The pages of callgate in Flower, and the tabs in their order."""

from __future__ import annotations

from worker.flower.page import Page
from worker.flower.pages.action_log import ActionLog
from worker.flower.pages.budgets import Budgets
from worker.flower.pages.calls import Calls, CallsScope
from worker.flower.pages.costs import CostFile, Costs, CostSeriesData
from worker.flower.pages.dead_letters import DeadLetterGroup, DeadLetters
from worker.flower.pages.leases import Leases
from worker.flower.pages.limits import Limits, OneBreaker
from worker.flower.pages.one_budget import OneBudget
from worker.flower.pages.one_call import OneCall
from worker.flower.pages.overview import Overview
from worker.flower.pages.pauses import Pauses
from worker.flower.pages.redrives import NewRedrivePage, OneRedrive, Redrives
from worker.flower.pages.unknown import OneUnknown, Unknown
from worker.flower.pages.unknown_csv import SettleCsv, UnknownCsv

PAGES: tuple[type[Page], ...] = (
    Overview,
    Calls,
    CallsScope,
    OneCall,
    Budgets,
    OneBudget,
    Pauses,
    Limits,
    OneBreaker,
    Unknown,
    OneUnknown,
    UnknownCsv,
    SettleCsv,
    ActionLog,
    Costs,
    CostFile,
    CostSeriesData,
    DeadLetters,
    DeadLetterGroup,
    Leases,
    Redrives,
    NewRedrivePage,
    OneRedrive,
)
"""Add yours here."""

TABS = (
    ("overview", "Overview"),
    ("calls", "Calls"),
    ("dead_letters", "Dead letters"),
    ("redrives", "Redrives"),
    ("budgets", "Budgets"),
    ("limits", "Limits"),
    ("unknown", "Unknown"),
    ("costs", "Costs"),
    ("leases", "Workers"),
    ("actions", "Action log"),
)
"""Names of pages, and how the navigation calls them. One whose page does not exist is left out."""
