//! The dashboard's built page, embedded.
