//! Follows one job of this host from its start to its ending.

pub mod unix;
