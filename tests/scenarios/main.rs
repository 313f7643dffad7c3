//! Scenario tests, one scenario a file. One binary, so that the agent is linked once.
