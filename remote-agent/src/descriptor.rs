//! Service descriptors: what an administrator writes about one program, read into one model whatever the dialect, with
//! every fault and oddity named by file, line, section and key.

mod announce;
pub mod common;
mod dialect_a;
mod dialect_b;
pub mod load;
mod logging;
pub mod model;
pub mod paths;
pub mod pattern;
mod sections;
#[cfg(test)]
pub(crate) mod tests;
pub mod types;
mod words;

pub use load::{LoadContext, Loaded, load};
pub use model::{Dialect, ServiceDescriptor};
