//! Programs that weigh: good ones, bad ones, slow ones, and how often they are asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use wps_remote_protocol::{ExecutionId, Input, ProcessId};

use super::*;
use crate::descriptor::{LoadContext, Loaded, load};

struct World {
    folder: tempfile::TempDir,
    descriptor: ServiceDescriptor,
    weigher: Weigher,
}

impl World {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("weigh.sh");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let text = "[Description]\nservice = P\nexecutable = /bin/true\n[Options]\nweight_command = weigh.sh 'a b'\n\
            [Output]\nresult = {\"type\": \"string\", \"file\": \"x\"}\n";
        let path = folder.path().join("p.ini");
        let context = LoadContext::bare(folder.path().join("work"));
        let Loaded::Descriptor(descriptor) = load(&path, text.as_bytes(), &context) else {
            panic!("the descriptor loads")
        };
        Self { folder, descriptor: *descriptor, weigher: Weigher::default() }
    }

    async fn weigh(&self, texts: &[&str]) -> Result<f64, String> {
        let value = |text: &&str| Input { id: "text".into(), value: Value::literal(*text) };
        let request = Request {
            execution: ExecutionId::new("e1").unwrap(),
            process: ProcessId::new("default", "P").unwrap(),
            inputs: texts.iter().map(value).collect(),
            base_url: String::new(),
        };
        let manner = Manner {
            shared: None,
            grace: Duration::from_secs(1),
            log_limit_bytes: 1000,
            hidden_variables: vec!["HOME".into()],
            run_as: None,
            cgroup: None,
        };
        self.weigher.weigh(&self.descriptor, &request, &manner).await.unwrap()
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default().lines().count()
    }
}

#[tokio::test]
async fn a_number_is_a_weight_and_is_asked_for_once() {
    let world =
        World::new("echo asked >> calls; cat > question; echo \"$1 ${HOME-hidden}\" > said; echo ' 2.5'");
    assert_eq!(world.weigh(&["a", "b; rm"]).await, Ok(2.5));
    let question = fs::read_to_string(world.folder.path().join("question")).unwrap();
    assert_eq!(question, r#"{"process":"default:P","inputs":{"text":["a","b; rm"]}}"#);
    assert_eq!(fs::read_to_string(world.folder.path().join("said")).unwrap(), "a b hidden\n");
    assert_eq!(world.weigh(&["a", "b; rm"]).await, Ok(2.5));
    assert_eq!(world.lines("calls"), 1, "a refused request comes again and need not be weighed again");
    assert_eq!(world.weigh(&["other"]).await, Ok(2.5));
    assert_eq!(world.lines("calls"), 2);
}

#[tokio::test]
async fn what_is_not_a_number_is_said() {
    for (script, expected) in [
        ("echo seven", "printed `seven`, which is not a number from 0"),
        ("echo -1", "printed `-1`"),
        ("echo NaN", "printed `NaN`"),
        ("yes 1", "failed"),
        ("echo 5; echo no table >&2; exit 3", "failed (exit status: 3): no table"),
        (":", "printed ``"),
    ] {
        let error = World::new(script).weigh(&["a"]).await.unwrap_err();
        assert!(error.starts_with("weight_command ") && error.contains(expected), "{script}: {error}");
    }
    let mut world = World::new(":");
    world.descriptor.weight_command = Some(vec!["/no/such/program".into()]);
    let error = world.weigh(&["a"]).await.unwrap_err();
    assert!(error.contains("`/no/such/program` cannot be started"), "{error}");
}

#[tokio::test]
async fn a_slow_one_is_ended_with_what_it_started() {
    let world = World::new("sleep 600 & echo $! > child; wait");
    let begin = Instant::now();
    let error = world.weigh(&["a"]).await.unwrap_err();
    assert!(error.contains("did not answer within 5 s"), "{error}");
    assert!(begin.elapsed() < LIMIT + Duration::from_secs(5));
    let child = fs::read_to_string(world.folder.path().join("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    let gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !gone() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone(), "its child still runs");
}
