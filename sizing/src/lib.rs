//! Sizing: evidence in, recommendation out. Pure: no I/O, no async.
