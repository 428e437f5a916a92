//! `try`: one run of one descriptor on this host, through the same preparation and the same supervisor as a real one, without
//! XMPP. What happens is shown as it happens. Everything lies in a private folder that goes with the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wps_remote_protocol::{Content, ExecutionId, Input, Inputs, Output, Request, Value};

use super::fault::Fault;
use super::looking::cannot_read;
use super::stop::StopSignals;
use super::{CANNOT_START, FAILED, Format, Try, complain, say};
use crate::command::{Plan, PrepareError, from_json};
use crate::config::AgentConfig;
use crate::descriptor::load::load_descriptor;
use crate::descriptor::{LoadContext, ServiceDescriptor};
use crate::execution::{self, Begin, Event, Forks, Host, user};
use crate::explain;
use crate::prepare::{self, Manner};
use crate::workdir::{Control, Ending};
use crate::{LOG_LIMIT, Options};

/// Larger results are only named.
const SHOWN: u64 = 1024;

/// Grace time when no configuration names one.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) async fn run(wanted: &Try) -> ExitCode {
    attempt(wanted).await.unwrap_or_else(|fault| fault.tell(wanted.format))
}

async fn attempt(wanted: &Try) -> Result<ExitCode, Fault> {
    let config = wanted.config.as_deref().map(AgentConfig::load).transpose();
    let config = config.map_err(|error| Fault::configuration(&error))?;
    let execution = execution_id(wanted)?;
    let scratch = Scratch::new(wanted)?;
    let context = match &config {
        // The agent's own folders stay as they are: nobody would tidy up there after this run.
        Some(config) => LoadContext { work_root: scratch.path.join("work"), ..config.load_context() },
        None => LoadContext::bare(scratch.path.join("work")),
    };
    let file = std::path::absolute(&wanted.file).map_err(|error| cannot_read(&wanted.file, &error))?;
    let bytes = fs::read(&file).map_err(|error| cannot_read(&file, &error))?;
    let descriptor = match load_descriptor(&file, &bytes, &context) {
        Ok(descriptor) => descriptor,
        Err(error) if wanted.format == Format::Json => {
            say(&explain::unusable(&error).to_string());
            return Ok(ExitCode::from(FAILED));
        }
        Err(error) => return Ok(complain(&error.to_string(), FAILED)),
    };
    let request = Request {
        execution: execution.clone(),
        process: descriptor.id.clone(),
        inputs: inputs(wanted, &descriptor)?,
        base_url: String::new(),
    };
    // Results go to a shared folder of this run's own: without one they would have to fit into a message.
    let shared = match wanted.dry_run {
        true => context.shared_dir.clone(),
        false => Some(make(scratch.path.join("shared"))?),
    };
    let manner = Manner {
        shared,
        grace: config.as_ref().map_or(GRACE, |config| config.kill_grace),
        log_limit_bytes: LOG_LIMIT,
        hidden_variables: Vec::new(),
        run_as: match &config {
            Some(config) => user::run_as(config.run_as.as_deref(), config.run_as_group.as_deref())
                .map_err(|error| Fault::host(error.to_string()))?,
            None => None,
        },
        cgroup: None,
    };
    if let Some(user) = manner.run_as.as_ref().filter(|_| !wanted.dry_run) {
        // The program's user must get through to its run directory, and nobody else.
        for folder in [scratch.path.clone(), make(scratch.path.join("work"))?] {
            crate::files::give(&folder, user.uid, user.gid)
                .map_err(|error| Fault::host(format!("{}: {error}", folder.display())))?;
        }
    }
    let plan = match prepare::plan(&descriptor, &request, &manner) {
        Ok(plan) => plan,
        Err(error) => return Ok(refused(&error, wanted.format)),
    };
    if wanted.dry_run {
        show_plan(plan, &descriptor, wanted.format);
        return Ok(ExitCode::SUCCESS);
    }
    if wanted.format == Format::Text {
        show_beginning(&plan, &descriptor);
    }
    let host = Host {
        control: Control::open(&scratch.path.join("control"))
            .map_err(|error| Fault::host(error.to_string()))?,
        supervisor: Options::new().map_err(|error| Fault::host(error.to_string()))?.supervisor,
        shared: manner.shared.clone(),
        // A run to look at leaves nothing on servers.
        uploader: None,
        hidden_variables: Vec::new(),
        forks: Forks::default(),
    };
    // A descriptor that names its own `output_dir` has its run directory there.
    let own = plan.make_dirs.iter().filter(|folder| folder.ends_with(execution.as_str()) && !folder.exists());
    let own: Vec<PathBuf> = own.cloned().collect();
    let code = execute(Arc::new(host), Arc::new(descriptor), request, manner, wanted.format).await;
    if !wanted.keep {
        for folder in own {
            let _ = fs::remove_dir_all(folder);
        }
    } else if wanted.format == Format::Text {
        say(&format!("kept      {}", scratch.path.display()));
        for folder in own.iter().filter(|folder| !folder.starts_with(&scratch.path)) {
            say(&format!("kept      {}", folder.display()));
        }
    }
    Ok(code)
}

/// The private folder of one run: nobody else can look into it or know its name beforehand. It goes with this value.
struct Scratch {
    path: PathBuf,
    _made: Option<TempDir>,
}

impl Scratch {
    fn new(wanted: &Try) -> Result<Self, Fault> {
        if wanted.dry_run {
            // Only shown: a dry run writes nothing.
            return Ok(Self { path: std::env::temp_dir().join("wps-remote-agent-try"), _made: None });
        }
        let cannot = |error: std::io::Error| {
            Fault::host(format!(
                "no private folder can be made in {}: {error}",
                std::env::temp_dir().display()
            ))
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix("wps-remote-agent-try-").disable_cleanup(wanted.keep);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o700));
        }
        let made = builder.tempdir().map_err(cannot)?;
        Ok(Self { path: made.path().to_owned(), _made: Some(made) })
    }
}

/// Runs and shows; Ctrl-C ends the job.
async fn execute(
    host: Arc<Host>,
    descriptor: Arc<ServiceDescriptor>,
    request: Request,
    manner: Manner,
    format: Format,
) -> ExitCode {
    let execution = request.execution.clone();
    let control_folder = host.control.folder(&execution).path().to_owned();
    let prepare = move || prepare::prepare(&descriptor, &request, "try", 0, &manner, &control_folder);
    let abort = CancellationToken::new();
    let (events, mut happenings) = mpsc::channel(64);
    let running =
        execution::run(host.clone(), execution, Begin::New(Box::new(prepare)), abort.clone(), events);
    let mut running = std::pin::pin!(running);
    let Ok(mut signals) = StopSignals::listen() else {
        return complain("signals cannot be received", CANNOT_START);
    };
    let mut done = false;
    let ending = loop {
        tokio::select! {
            () = &mut running, if !done => done = true,
            _ = signals.next() => abort.cancel(),
            event = happenings.recv() => match event {
                Some((_, Event::Ended(ending))) => break ending,
                Some((_, event)) => show_event(&event, format),
                None => return complain("the run ended without an ending", FAILED),
            },
        }
    };
    show_ending(&ending, format, host.shared.as_deref())
}

fn show_event(event: &Event, format: Format) {
    let (text, json) = match event {
        Event::Started => ("started".to_owned(), json!({ "event": "started" })),
        Event::Progress(percent) => {
            (format!("progress  {percent} %"), json!({ "event": "progress", "percent": percent }))
        }
        Event::Log(level, line) => {
            (format!("log       {level}: {line}"), json!({ "event": "log", "level": level, "text": line }))
        }
        Event::Read(counts) => (format!("output    {counts}"), json!({ "event": "read", "counts": counts })),
        Event::Ended(_) => return,
    };
    say(&if format == Format::Text { text } else { json.to_string() });
}

fn show_ending(ending: &Ending, format: Format, shared: Option<&Path>) -> ExitCode {
    match (ending, format) {
        (Ending::Completed(outputs), Format::Json) => {
            say(&json!({ "event": "completed", "outputs": outputs, "shared_dir": shared }).to_string());
        }
        (Ending::Completed(outputs), Format::Text) => {
            for output in outputs {
                say(&format!("output    {} = {}", output.id, shown(output, shared)));
            }
            say("completed");
        }
        (Ending::Failed(error), Format::Json) => {
            say(&json!({ "event": "failed", "error": error }).to_string());
            return ExitCode::from(FAILED);
        }
        (Ending::Failed(error), Format::Text) => {
            return complain(&format!("failed    {}", error.text), FAILED);
        }
    }
    ExitCode::SUCCESS
}

fn shown(output: &Output, shared: Option<&Path>) -> String {
    let cut = |text: &str| wps_remote_protocol::native::cut(text, 1024);
    match &output.value {
        Value::Literal { text, .. } => cut(text),
        Value::Complex { content: Content::Text(text), media_type, .. } => {
            format!("({media_type}) {}", cut(text))
        }
        Value::Complex { content: Content::Bytes(bytes), media_type, .. } => {
            format!("({media_type}) {} bytes", bytes.len())
        }
        Value::Complex { content: Content::Shared(file), media_type, .. } => {
            let path = shared.unwrap_or(Path::new("")).join(&file.path);
            let text = if file.bytes <= SHOWN { fs::read_to_string(&path).ok() } else { None };
            match text {
                Some(text) => format!("({media_type}) {}", cut(text.trim_end())),
                None => {
                    format!("({media_type}) {} bytes (--keep keeps them: {})", file.bytes, path.display())
                }
            }
        }
        Value::BoundingBox(bbox) => format!("{:?} {:?}", bbox.lower, bbox.upper),
        Value::Reference { href, .. } => href.clone(),
    }
}

fn refused(error: &PrepareError, format: Format) -> ExitCode {
    if format == Format::Text {
        return complain(&error.to_string(), FAILED);
    }
    say(&json!({ "error": explain::refusal(error) }).to_string());
    ExitCode::from(FAILED)
}

fn show_plan(plan: Plan, descriptor: &ServiceDescriptor, format: Format) {
    if format == Format::Json {
        say(&explain::dry_run(descriptor, &Ok(plan)).to_string());
        return;
    }
    show_beginning(&plan, descriptor);
    for (name, value) in &plan.env {
        say(&format!("variable  {}", plan.masked(&format!("{name}={value}"))));
    }
    for file in &plan.files {
        say(&format!("file      {}", file.path.display()));
    }
    if let Some(held) = &plan.held {
        say(&format!("warning   {held}"));
    }
}

fn show_beginning(plan: &Plan, descriptor: &ServiceDescriptor) {
    for finding in descriptor.warnings.iter().chain(&plan.warnings) {
        say(&format!("warning   {finding}"));
    }
    say(&format!("command   {}", plan.masked(&explain::quoted(&plan.argv()))));
    say(&format!("folder    {}", plan.cwd.display()));
}

fn execution_id(wanted: &Try) -> Result<ExecutionId, Fault> {
    let text = wanted.execution_id.clone().unwrap_or_else(|| format!("try-{}", std::process::id()));
    ExecutionId::new(&text).map_err(|error| Fault::call(format!("--execution-id: {error}")))
}

fn make(folder: PathBuf) -> Result<PathBuf, Fault> {
    fs::create_dir_all(&folder)
        .map_err(|error| Fault::host(format!("{} cannot be made: {error}", folder.display())))?;
    Ok(folder)
}

fn inputs(wanted: &Try, descriptor: &ServiceDescriptor) -> Result<Inputs, Fault> {
    let mut inputs = Inputs::new();
    if let Some(path) = &wanted.inputs {
        let fail = |why: String| Fault::call(format!("--inputs {}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        let Json::Object(object) = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?
        else {
            return Err(fail("must hold one JSON object: {\"input\": value}".to_owned()));
        };
        inputs.extend(from_json::inputs(descriptor, &object));
    }
    for pair in &wanted.input {
        let (id, text) = pair
            .split_once('=')
            .ok_or_else(|| Fault::call(format!("--input {pair}: write it as ID=VALUE")))?;
        let value = match text.strip_prefix('@') {
            Some(escaped) if escaped.starts_with('@') => given(escaped, is_complex(descriptor, id)),
            Some(file) => from_file(Path::new(file), is_complex(descriptor, id))?,
            None => given(text, is_complex(descriptor, id)),
        };
        inputs.push(Input { id: id.to_owned(), value });
    }
    Ok(inputs)
}

fn is_complex(descriptor: &ServiceDescriptor, id: &str) -> bool {
    descriptor.inputs.iter().any(|input| input.name == id && input.kind.is_complex())
}

fn given(text: &str, document: bool) -> Value {
    if document {
        let content = Content::Text(text.to_owned());
        Value::Complex { content, media_type: String::new(), schema: None }
    } else {
        Value::literal(text)
    }
}

fn from_file(path: &Path, document: bool) -> Result<Value, Fault> {
    let bytes = fs::read(path).map_err(|error| cannot_read(path, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(given(&text, document)),
        Err(error) if document => {
            let content = Content::Bytes(error.into_bytes());
            Ok(Value::Complex { content, media_type: String::new(), schema: None })
        }
        Err(_) => Err(Fault::call(format!("{} holds no text, but the input is a literal", path.display()))),
    }
}
