"""Ratios within a round, their medians, and what they are compared with."""
import collections
import statistics
import sys

# `limit` is the most, or with at_least the least, that is good; `of` is the unit or the base.
Target = collections.namedtuple("Target", "limit of at_least", defaults=(False,))

LINES = {}  # what print_line() was given: figures of all rounds by row and what was measured


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def turned(subjects, round_number):
    """Another order in each round."""
    turn = round_number % len(subjects)
    return subjects[turn:] + subjects[:turn]


def size_name(value_bytes):
    return f"{value_bytes // 1024} KiB" if value_bytes >= 1024 else f"{value_bytes} B"


def median_of(rounds, field):
    return statistics.median(figures[field] for figures in rounds)


def ratios(rounds, base_rounds, field, base_field=None):
    return [figures[field] / base[base_field or field]
            for figures, base in zip(rounds, base_rounds)]


def median_ratio(rounds, base_rounds, field):
    return statistics.median(ratios(rounds, base_rounds, field))


def figure(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def spread(of_rounds):
    """The median, and the middle half of the rounds, to tell a difference from noise."""
    low, _, high = (statistics.quantiles(of_rounds, n=4) if len(of_rounds) > 1
                    else list(of_rounds) * 3)
    return f"{figure(statistics.median(of_rounds))} ({figure(low)}–{figure(high)})"


def verdict(of_rounds, target):
    middle = statistics.median(of_rounds)
    met = middle >= target.limit if target.at_least else middle <= target.limit
    sign = "≥" if target.at_least else "≤"
    return (f"{'ok' if met else 'MISSED'}: {spread(of_rounds)}, "
            f"target {sign} {target.limit:.2f} {target.of}")


def print_line(row, what, of_rounds, target=None, note=""):
    """One row of those that are not GET at a pipeline: what was measured, and what it should be."""
    LINES[f"{row}: {what}"] = of_rounds
    outcome = verdict(of_rounds, target) if target else spread(of_rounds)
    progress("")
    print(f"{row:<16} {what:<46} {outcome}{'; ' + note if note else ''}")
