//! What leaves the agent.
