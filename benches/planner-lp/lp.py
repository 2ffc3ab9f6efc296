"""Optimum of the planner's linear program by HiGHS: the reference of `make bench-planner`.

Reads one instance a line as JSON on standard input, writes its number (from 0) and its optimum a line as they are found; a
process for each core. Not a Rust crate on purpose: `highs` takes seven minutes of compiling, the wheel of `highspy` none, and
nothing but this bench wants it.

Columns are (demand, lane, slot). A cache is an occupancy per slot, linked by what arrives and what leaves, so that a
column has at most six entries whatever its bytes stay for.
"""

import json
import multiprocessing
import os
import sys

import highspy
import numpy as np


class Model:
    """Rows and columns as they are found."""

    def __init__(self):
        self.rows, self.lower, self.upper = {}, [], []
        self.cost, self.bound, self.starts, self.index, self.value = [], [], [], [], []

    def row(self, name, lower, upper):
        if name not in self.rows:
            self.rows[name] = len(self.lower)
            self.lower.append(lower)
            self.upper.append(upper)
        return self.rows[name]

    def column(self, gain, bound, entries):
        self.starts.append(len(self.index))
        self.cost.append(-gain)
        self.bound.append(bound)
        for row, value in entries:
            self.index.append(row)
            self.value.append(value)

    def optimum(self):
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(self.lower)
        lp.col_cost_, lp.col_lower_ = np.array(self.cost), np.zeros(len(self.cost))
        lp.col_upper_ = np.array(self.bound)
        lp.row_lower_, lp.row_upper_ = np.array(self.lower), np.array(self.upper)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.array(self.starts + [len(self.index)], dtype=np.int32)
        lp.a_matrix_.index_ = np.array(self.index, dtype=np.int32)
        lp.a_matrix_.value_ = np.array(self.value)
        solver = highspy.Highs()
        # The dual simplex takes three seconds where the interior point takes twenty.
        for option, value in (("output_flag", False), ("log_to_console", False), ("solver", "simplex"), ("threads", 1)):
            solver.setOptionValue(option, value)
        solver.passModel(lp)
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"HiGHS: {solver.modelStatusToString(solver.getModelStatus())}")
        return -solver.getInfo().objective_function_value


UNIT = 1e6  # bytes per unit of the model: megabytes keep coefficients near 1


def solve(case):
    """Optimum of one instance, in its money."""
    model, slots = Model(), case["slots"]
    balance = {(s, t): model.row(("b", s, t), 0.0, 0.0) for s in range(len(case["cache"])) for t in range(slots)}
    for n, d in enumerate(case["demands"]):
        whole = model.row(("d", n), 0.0, 1.0)
        size = d["bytes"] / UNIT
        for lane in case["ways"][d["ways"]]:
            frm, to, rate, cost = case["lanes"][lane]
            gain = d["worth"] - d["bytes"] * cost * d["vain"]
            if gain <= 0.0:
                continue
            for t in range(d["release"], d["deadline"] + 1):
                entries = [
                    (whole, 1.0),
                    (model.row(("l", lane, t), 0.0, rate / UNIT), size),
                    (model.row(("e", frm, t), 0.0, case["egress"][frm] / UNIT), size),
                    (model.row(("i", to, t), 0.0, case["ingress"][to] / UNIT), size),
                    (balance[to, t], size),
                ]
                if d["last_use"] + 1 < slots:
                    entries.append((balance[to, d["last_use"] + 1], -size))
                model.column(gain, 1.0, entries)
    for s, room in enumerate(case["cache"]):
        for t in range(slots):
            # occupancy[t] = occupancy[t - 1] + arrivals[t] - departures before t
            entries = [(balance[s, t], -1.0)] + ([(balance[s, t + 1], 1.0)] if t + 1 < slots else [])
            model.column(0.0, room / UNIT, entries)
    return model.optimum()


def solve_line(numbered):
    number, line = numbered
    return number, solve(json.loads(line))


if __name__ == "__main__":
    # HiGHS prints a line of its own whatever it is told: standard output is for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with multiprocessing.Pool() as pool:
        for number, optimum in pool.imap_unordered(solve_line, enumerate(sys.stdin)):
            print(number, optimum, file=answers, flush=True)
