//! Explains descriptors to the people who write them: what each key means here, what would be announced, what would be run,
//! and every fault with its place and remedy. Gives texts and JSON; prints nothing.
