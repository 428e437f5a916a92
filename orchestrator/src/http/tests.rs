//! The whole HTTP side over real sockets, with a stand-in for the driver.
