//! The whole HTTP side over real sockets, with a stand-in for the driver.

mod access;
mod chain;
mod clients;
mod hostile;
mod operators;
mod results;
mod world;
mod wps;
mod wps2;
