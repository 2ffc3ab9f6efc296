//! Chunks from agent to agent.
