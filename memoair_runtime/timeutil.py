"""Dates for people."""

from datetime import datetime


def format_date(timestamp: datetime) -> str:
    """Format the date as people write it: ``3 March 2026``, in English in every locale."""
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    return f"{timestamp.day} {months[timestamp.month - 1]} {timestamp.year}"
