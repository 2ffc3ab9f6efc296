//! What agents, schedulers and the dashboard call.
