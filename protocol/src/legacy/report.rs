//! From an agent to an orchestrator: eight messages. The Python agent encodes some values and others not; each topic is
//! read as it really comes and written so that GeoServer's splitting survives it.

use serde_json::{Value, json};

use super::body::{Body, decode_bytes, decode_value, push, push_raw};
use super::{LegacyError, LegacyOutput, Registration, pyjson};
use crate::message::{ExecutionId, LogLevel};
use crate::process::ProcessId;

/// What an agent can say in this dialect.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A process is offered.
    Register(Box<Registration>),
    /// A process is no longer offered. GeoServer looks at the sender alone; the Python agent never sends it.
    Unregister(Option<ProcessId>),
    /// Load of the agent's host.
    Load(LegacyLoad),
    /// A request was refused; nothing was started.
    CannotExecute {
        /// Which one.
        execution: ExecutionId,
    },
    /// A line for the log.
    Log {
        /// Which execution.
        execution: ExecutionId,
        /// How bad.
        level: LogLevel,
        /// The text.
        text: String,
    },
    /// How far it is.
    Progress {
        /// Which execution.
        execution: ExecutionId,
        /// Per cent; the Python agent passes on whatever the program prints, below 0 and over 100 too.
        percent: f64,
    },
    /// It ended well; repeated each 10 s until `finish`.
    Completed {
        /// Which execution.
        execution: ExecutionId,
        /// Echo of the request's.
        base_url: String,
        /// All outputs.
        outputs: Vec<LegacyOutput>,
        /// Outputs that cannot be read: name and what is wrong.
        broken: Vec<(String, String)>,
    },
    /// It ended badly. Comes from the process of the job or from the service process; often twice.
    Error {
        /// Which execution.
        execution: ExecutionId,
        /// In words.
        text: String,
    },
}

/// Load of an agent's host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LegacyLoad {
    /// CPU in use, 0 to 100: an average since the last question, not a Unix load.
    pub cpu_percent: f64,
    /// Memory in use, 0 to 100.
    pub memory_percent: f64,
}

impl Report {
    /// The body.
    pub fn encode(&self) -> String {
        match self {
            Self::Register(registration) => registration.encode(),
            Self::Unregister(None) => "topic=unregister".to_owned(),
            Self::Unregister(Some(process)) => format!("topic=unregister&service={}", process.dotted()),
            Self::Load(load) => load.encode(),
            Self::CannotExecute { execution } => format!(
                "topic=cantexec&id=master&message=cantexec&output=Cannot%20Execute&exec_id={execution}"
            ),
            Self::Log { execution, level, text } => {
                let level = match level {
                    // The words that Java knows; all others become INFO there.
                    LogLevel::Debug | LogLevel::Info => "INFO",
                    LogLevel::Warning => "WARNING",
                    LogLevel::Error => "SEVERE",
                };
                let mut body = format!("topic=log&id={execution}&level={level}");
                push(&mut body, "message", text);
                body
            }
            Self::Progress { execution, percent } => {
                format!("topic=progress&id={execution}&message={percent:?}")
            }
            Self::Completed { execution, base_url, outputs, broken: _ } => {
                let mut body = format!("topic=completed&id={execution}");
                push_raw(&mut body, "baseURL", if base_url.is_empty() { "null" } else { base_url });
                push_raw(&mut body, "message", "completed");
                for output in outputs {
                    push(&mut body, &output.name, &output.encode());
                }
                body
            }
            Self::Error { execution, text } => {
                let mut body = format!("topic=error&id={execution}");
                push(&mut body, "message", text);
                body
            }
        }
    }

    /// Reads a body that was sent to an orchestrator.
    pub fn decode(body: &str) -> Result<Self, LegacyError> {
        let body = Body::read(body)?;
        match body.topic {
            "register" => Ok(Self::Register(Box::new(Registration::decode(&body)?))),
            "unregister" => {
                let fields = body.fields()?;
                let service = fields.iter().find(|(name, _)| *name == "service");
                let process = service.and_then(|(_, dotted)| dotted.split_once('.'));
                let process = process.map(|(namespace, name)| ProcessId::new(namespace, name)).transpose()?;
                Ok(Self::Unregister(process))
            }
            "loadavg" => LegacyLoad::decode(&body).map(Self::Load),
            "cantexec" => {
                let execution = execution(&body, "cantexec", "exec_id")?;
                Ok(Self::CannotExecute { execution })
            }
            "log" => log(&body),
            "progress" => {
                const TOPIC: &str = "progress";
                let execution = execution(&body, TOPIC, "id")?;
                let fields = body.fields()?;
                let message = decode_value(Body::need(&fields, TOPIC, "message")?);
                let percent = message.trim().parse::<f64>().ok().filter(|percent| percent.is_finite());
                let percent = percent.ok_or_else(|| LegacyError::field(TOPIC, "message", "is no number"))?;
                Ok(Self::Progress { execution, percent })
            }
            "completed" => completed(&body),
            "error" => {
                const TOPIC: &str = "error";
                let execution = execution(&body, TOPIC, "id")?;
                let fields = body.fields()?;
                let message = fields.iter().find(|(name, _)| *name == "message").map(|(_, value)| *value);
                let text = decode_value(message.unwrap_or_default());
                // The Python agent sends a JSON literal, or in one case plain text; ours sends plain text.
                let text = serde_json::from_str::<String>(&text).unwrap_or(text);
                Ok(Self::Error { execution, text })
            }
            other => Err(LegacyError::UnknownTopic(other.chars().take(40).collect())),
        }
    }
}

fn execution(body: &Body<'_>, topic: &'static str, field: &'static str) -> Result<ExecutionId, LegacyError> {
    let fields = body.fields()?;
    let id = Body::need(&fields, topic, field)?;
    ExecutionId::new(id).map_err(|error| LegacyError::field(topic, field, format!("is not usable: {error}")))
}

/// Everything after the first `&message=` is the text, because the Python agent encodes nothing in it.
fn log(body: &Body<'_>) -> Result<Report, LegacyError> {
    const TOPIC: &str = "log";
    let missing = LegacyError::Missing { topic: TOPIC, field: "message" };
    let (head, text) = body.rest.split_once("&message=").ok_or(missing)?;
    let head = Body { topic: TOPIC, rest: head };
    let execution = execution(&head, TOPIC, "id")?;
    let fields = head.fields()?;
    let level = fields.iter().find(|(name, _)| *name == "level").map_or("", |(_, level)| *level);
    let level = match level.trim().to_ascii_uppercase().as_str() {
        "DEBUG" | "FINE" | "FINER" | "FINEST" | "TRACE" => LogLevel::Debug,
        "WARN" | "WARNING" => LogLevel::Warning,
        "ERROR" | "SEVERE" | "CRITICAL" | "FATAL" => LogLevel::Error,
        _ => LogLevel::Info,
    };
    Ok(Report::Log { execution, level, text: decode_value(text) })
}

fn completed(body: &Body<'_>) -> Result<Report, LegacyError> {
    const TOPIC: &str = "completed";
    let execution = execution(body, TOPIC, "id")?;
    let mut base_url = String::new();
    let mut outputs: Vec<LegacyOutput> = Vec::new();
    let mut broken = Vec::new();
    for (name, value) in body.fields()? {
        match name {
            "id" | "message" => {}
            "baseURL" => base_url = value.to_owned(),
            _ => {
                let json = decode_bytes(value).ok_or_else(|| "is not percent-encoded".to_owned());
                match json.and_then(|json| LegacyOutput::decode(name, &json)) {
                    // A repeated name: the last one wins, as at GeoServer.
                    Ok(output) => {
                        outputs.retain(|other| other.name != output.name);
                        outputs.push(output);
                    }
                    Err(why) => broken.push((name.chars().take(80).collect(), why)),
                }
            }
        }
    }
    Ok(Report::Completed { execution, base_url, outputs, broken })
}

impl LegacyLoad {
    /// Both numbers with a decimal point, because GeoServer casts them.
    fn encode(&self) -> String {
        let mut body = "topic=loadavg&id=master&message=loadavg".to_owned();
        let memory = json!({
            "vmem_value": self.memory_percent,
            "vmem_description": "Percentage of Memory used by the server.",
        });
        push(&mut body, "result_vmem", &pyjson::write(&memory));
        let cpu = json!({
            "loadavg_description": "Average Load on CPUs during the last 15 minutes.",
            "loadavg_value": self.cpu_percent,
        });
        push(&mut body, "result_loadavg", &pyjson::write(&cpu));
        body
    }

    fn decode(body: &Body<'_>) -> Result<Self, LegacyError> {
        const TOPIC: &str = "loadavg";
        let fields = body.fields()?;
        let value = |field: &'static str, key: &str| -> Result<f64, LegacyError> {
            let json = decode_value(Body::need(&fields, TOPIC, field)?);
            let json: Value = serde_json::from_str(&json)
                .map_err(|error| LegacyError::field(TOPIC, field, format!("is no JSON: {error}")))?;
            let number = json.get(key).and_then(Value::as_f64).filter(|number| number.is_finite());
            number
                .map(|number| number.clamp(0.0, 100.0))
                .ok_or_else(|| LegacyError::field(TOPIC, field, format!("has no number `{key}`")))
        };
        Ok(Self {
            cpu_percent: value("result_loadavg", "loadavg_value")?,
            memory_percent: value("result_vmem", "vmem_value")?,
        })
    }
}
