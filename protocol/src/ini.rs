//! INI
