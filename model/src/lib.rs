//! From accesses to profiles and forecasts.
