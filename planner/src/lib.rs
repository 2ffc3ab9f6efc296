//! From forecasts and requests to plans, purely.
