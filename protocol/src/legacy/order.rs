//! From an orchestrator to an agent: five messages. Written as GeoServer writes them, because the Python agent looks for
//! words in the text and answers nothing at all to what it cannot cut; read with more patience.

use super::LegacyError;
use super::body::{Body, decode_bytes, encode_pickle, push_raw};
use crate::message::ExecutionId;
use crate::pickle::{self, Plain};

/// What an orchestrator can say in this dialect.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// To a master: register with me.
    Invite,
    /// To a master: tell me your load.
    GetLoad,
    /// To a master: execute.
    Request(LegacyRequest),
    /// To the process of a job: your ending is stored, leave.
    Finish,
    /// To the process of a job: give up. The Python agent leaves the room without a word and lets its program run on.
    Abort,
}

/// An execution as this dialect asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacyRequest {
    /// Its name, which becomes a resource, a folder and an argument.
    pub execution: ExecutionId,
    /// Public address of the orchestrator; echoed in the completion.
    pub base_url: String,
    /// A dict of inputs.
    pub inputs: Plain,
}

impl Order {
    /// The body.
    pub fn encode(&self) -> String {
        match self {
            Self::Invite => "topic=invite".to_owned(),
            Self::GetLoad => "topic=getloadavg".to_owned(),
            Self::Finish => "topic=finish".to_owned(),
            Self::Abort => "topic=abort".to_owned(),
            Self::Request(request) => {
                let mut body = "topic=request".to_owned();
                push_raw(&mut body, "id", request.execution.as_str());
                push_raw(&mut body, "baseURL", &sendable(&request.base_url));
                push_raw(&mut body, "message", &encode_pickle(&pickle::write(&request.inputs)));
                body
            }
        }
    }

    /// Reads a body that was sent to an agent.
    pub fn decode(body: &str) -> Result<Self, LegacyError> {
        let body = Body::read(body)?;
        match body.topic {
            "invite" => Ok(Self::Invite),
            "getloadavg" => Ok(Self::GetLoad),
            "finish" => Ok(Self::Finish),
            "abort" => Ok(Self::Abort),
            "request" => {
                const TOPIC: &str = "request";
                let fields = body.fields()?;
                let execution = Body::need(&fields, TOPIC, "id")?;
                let execution = ExecutionId::new(execution)
                    .map_err(|error| LegacyError::field(TOPIC, "id", format!("is not usable: {error}")))?;
                let message = Body::need(&fields, TOPIC, "message")?;
                let bytes = decode_bytes(message)
                    .ok_or_else(|| LegacyError::field(TOPIC, "message", "is not percent-encoded"))?;
                let inputs = pickle::read(&bytes)?;
                if !matches!(inputs, Plain::Dict(_)) {
                    return Err(LegacyError::field(TOPIC, "message", "holds no dict of inputs"));
                }
                let base_url = fields.iter().find(|(name, _)| *name == "baseURL").map(|(_, value)| *value);
                // GeoServer writes `null` when no address is configured.
                let base_url = base_url.filter(|url| *url != "null").unwrap_or_default().to_owned();
                Ok(Self::Request(LegacyRequest { execution, base_url, inputs }))
            }
            other => Err(LegacyError::UnknownTopic(other.chars().take(40).collect())),
        }
    }
}

/// The base address travels unencoded, must not be empty and must not hold `&`, `=` or anything beyond ASCII: the agent
/// would answer such a request with silence. What does not fit is cut off at the query.
fn sendable(base_url: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'&' | b'=' | b'%');
    let until = base_url.bytes().position(|byte| byte == b'?' || !fits(byte)).unwrap_or(base_url.len());
    if until == 0 { "null".to_owned() } else { base_url[..until].to_owned() }
}
