//! The text dialect of GeoServer's WPS Remote plugin and its Python agent: `topic=…&key=value` bodies in private messages
//! of a room, for each namespace one room. Both directions of both sides: what an orchestrator writes and an agent reads
//! ([`Order`]), what an agent writes and an orchestrator reads ([`Report`]), and the addresses that carry half of the
//! meaning ([`Occupant`]). Reading is tolerant of everything that the old ends really send; writing is what both read.
//!
//! The dialect acknowledges nothing, and `finish` and `abort` carry no id: the occupant that they are addressed to is the
//! job. Everything here is text from strangers: bounded, and refused with an error that a log can show.

mod address;
mod body;
mod completed;
mod inputs;
mod order;
mod pyjson;
mod register;
mod report;
#[cfg(test)]
mod tests;
mod types;

use thiserror::Error;

use crate::pickle::PickleError;
use crate::process::ProcessIdError;

pub use address::{Occupant, job_resource, master_resource, nick};
pub use body::{decode_value, encode_value};
pub use completed::LegacyOutput;
pub use inputs::{InputsError, from_pickle, to_pickle};
pub use order::{LegacyRequest, Order};
pub use register::{Registration, RegistrationError};
pub use report::{LegacyLoad, Report};
pub use types::{LegacyType, look_up};

/// Largest body in bytes that is read: servers close a stream over some 256 KiB, unless told otherwise.
pub const MAX_BODY: usize = 1 << 20;
/// Most fields of one body.
pub const MAX_FIELDS: usize = 2_000;
/// Most inputs or outputs of one registration.
pub const MAX_PARAMETERS: usize = 1_000;

/// Why a body is not understood.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LegacyError {
    /// More bytes than [`MAX_BODY`].
    #[error("the message has {0} bytes, at most {MAX_BODY} are read")]
    TooLarge(usize),
    /// More fields than [`MAX_FIELDS`].
    #[error("the message has more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// It does not begin with `topic=`.
    #[error("the message does not begin with `topic=`")]
    NoTopic,
    /// A topic that this side does not know.
    #[error("unknown topic `{0}`")]
    UnknownTopic(String),
    /// A field is missing or empty.
    #[error("topic `{topic}` without `{field}`")]
    Missing {
        /// The topic.
        topic: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field does not hold what it must.
    #[error("topic `{topic}`: `{field}` {why}")]
    Field {
        /// The topic.
        topic: &'static str,
        /// The field.
        field: String,
        /// What is wrong, as the end of a sentence that begins with the field.
        why: String,
    },
    /// The inputs of a request.
    #[error("topic `request`: {0}")]
    Pickle(#[from] PickleError),
    /// The service of a registration.
    #[error("topic `register`: {0}")]
    Service(#[from] ProcessIdError),
}

impl LegacyError {
    fn field(topic: &'static str, field: &str, why: impl Into<String>) -> Self {
        Self::Field { topic, field: field.chars().take(80).collect(), why: why.into() }
    }
}
