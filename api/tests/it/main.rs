//! A real server on loopback, asked over HTTP, over the catalog in memory and over SQLite.

mod agents;
mod document;
mod events;
mod files;
mod fuzz;
mod harness;
mod joining;
mod people;
mod placement;
mod problems;
mod scopes;
mod shown;
mod tenants;
mod warmups;
mod webhooks;
