//! What an orchestrator and its remote agents agree on: the self-description of a process, the values that go in and
//! come out, the messages both ways, both dialects on the wire (native, and the text dialect of GeoServer's plugin and the
//! Python agent), and the INI language of every configuration file.
//!
//! Nothing in this crate opens a socket, touches the disk, reads a clock or makes an id.

pub mod address;
pub mod enrolment;
pub mod ini;
pub mod legacy;
pub mod message;
pub mod native;
pub mod pickle;
pub mod process;
pub mod value;

pub use address::AgentId;
pub use message::{
    ErrorKind, ExecutionError, ExecutionId, FromAgent, KillReceipt, Load, LogLevel, Refusal, Request, ToAgent,
};
pub use process::{
    AllowedValues, BoundingBoxData, ComplexData, DataType, Format, InputDescription, LiteralData,
    LiteralType, Occurs, OutputDescription, ProcessDescription, ProcessId, Publication,
};
pub use value::{BoundingBox, Content, Input, Inputs, Output, Outputs, SharedFile, Value};
