//! What is written down: namespace, profiles, plans, outcomes.
