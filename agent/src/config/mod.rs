//! Configuration: one set of options for flags, environment and file.
