//! Files on their way: what is taken over is complete, what leads elsewhere is refused.

use wps_remote_protocol::{Input, Output};

use super::*;

fn output(id: &str, path: &str, bytes: u64) -> Output {
    let content = Content::Shared(SharedFile { path: path.into(), bytes, sha256: None });
    Output::new(id, Value::Complex { content, media_type: "text/xml".into(), schema: None })
}

fn stage() -> (tempfile::TempDir, Results, JobId, ExecutionId) {
    let folder = tempfile::tempdir().unwrap();
    let results = Results::open(Some(folder.path().join("shared")), folder.path().join("store")).unwrap();
    let job = JobId::new(uuid::Uuid::from_u128(7));
    (folder, results, job, job.execution(1))
}

fn write(results: &Results, path: &str, content: &str) {
    let file = results.shared().unwrap().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

#[tokio::test]
async fn a_result_is_taken_over_and_found() {
    let (_folder, results, job, execution) = stage();
    let path = format!("{execution}/result 1/a b.gml");
    write(&results, &path, "<gml/>");
    for _ in 0..2 {
        let outputs =
            results.collect(job, execution.clone(), vec![output("result 1", &path, 6)]).await.unwrap();
        let Value::Complex { content: Content::Shared(file), .. } = &outputs[0].value else { panic!() };
        assert_eq!(file.path, format!("{job}/result%201/a b.gml"));
        assert_eq!(std::fs::read_to_string(results.path(file).unwrap()).unwrap(), "<gml/>");
    }
    results.discard_execution(&execution).await;
    assert!(!results.shared().unwrap().join(execution.as_str()).exists());
    results.discard(job).await;
    assert!(!results.store().join(job.to_string()).exists());
}

#[tokio::test]
async fn files_that_are_not_the_executions_own_are_refused() {
    let (folder, results, job, execution) = stage();
    write(&results, "other/result/x", "secret");
    std::fs::write(folder.path().join("outside"), "secret").unwrap();
    write(&results, &format!("{execution}/result/real"), "123");
    let link = results.shared().unwrap().join(format!("{execution}/result/link"));
    std::os::unix::fs::symlink(folder.path().join("outside"), link).unwrap();
    for (path, bytes, why) in [
        ("other/result/x".to_string(), 6, "not in the execution's folder"),
        (format!("{execution}/../other/result/x"), 6, "not in the execution's folder"),
        ("/etc/passwd".to_string(), 6, "not in the execution's folder"),
        (format!("{execution}/result/link"), 6, "leads out"),
        (format!("{execution}/result"), 6, "regular file"),
        (format!("{execution}/result/real"), 4, "3 bytes, but 4"),
        (format!("{execution}/result/none"), 4, "cannot be read here"),
    ] {
        let error =
            results.collect(job, execution.clone(), vec![output("result", &path, bytes)]).await.unwrap_err();
        assert!(error.to_string().contains(why), "{path}: {error}");
    }
    let file = SharedFile { path: "../x".into(), bytes: 0, sha256: None };
    assert!(results.path(&file).is_err());
}

#[tokio::test]
async fn large_inputs_leave_the_message() {
    let (_folder, results, job, _) = stage();
    let complex = |n: usize| Input {
        id: format!("i{n}"),
        value: Value::Complex {
            content: Content::Text("x".repeat(n)),
            media_type: "text/plain".into(),
            schema: None,
        },
    };
    let inputs = vec![complex(10), complex(40_000), complex(20_000)];
    let staged = results.stage_inputs(job, inputs.clone()).await.unwrap();
    assert_eq!((&staged[0], &staged[2]), (&inputs[0], &inputs[2]));
    let Value::Complex { content: Content::Shared(file), .. } = &staged[1].value else { panic!() };
    assert_eq!(std::fs::read_to_string(results.shared().unwrap().join(&file.path)).unwrap().len(), 40_000);
    results.discard_inputs(job).await;
    assert!(!results.shared().unwrap().join("in").join(job.to_string()).exists());

    let many: Inputs = (0..10).map(|n| complex(20_000 + n)).collect();
    let staged = results.stage_inputs(job, many).await.unwrap();
    assert!(staged.iter().map(|i| i.value.inline_bytes()).sum::<usize>() <= MAX_INLINE_TOTAL);

    let folder = tempfile::tempdir().unwrap();
    let alone = Results::open(None, folder.path().join("store")).unwrap();
    let error = alone.stage_inputs(job, vec![complex(40_000)]).await.unwrap_err();
    assert!(error.to_string().contains("shared_dir"), "{error}");
}

/// Quotation marks need seven bytes each on the wire.
#[tokio::test]
async fn documents_full_of_quotation_marks_leave_the_message() {
    let (_folder, results, job, _) = stage();
    let document = Value::Complex {
        content: Content::Text("\"".repeat(30_000)),
        media_type: "application/json".into(),
        schema: None,
    };
    let mut inputs: Inputs = (0..3).map(|n| Input { id: format!("d{n}"), value: document.clone() }).collect();
    inputs.push(Input { id: "l".into(), value: Value::literal("x".repeat(32_000)) });
    let staged = results.stage_inputs(job, inputs).await.unwrap();
    assert_eq!(staged[3].value, Value::literal("x".repeat(32_000)));
    assert!(matches!(&staged[0].value, Value::Complex { content: Content::Shared(_), .. }));
}

/// Literals cannot be passed as files: what is too much is refused before the job is accepted, and by its right name.
#[tokio::test]
async fn literals_that_no_message_can_hold_are_refused() {
    let (_folder, results, job, _) = stage();
    let literals = |n: usize, text: &str| -> Inputs {
        (0..n).map(|_| Input { id: "many".into(), value: Value::literal(text) }).collect()
    };
    results.stage_inputs(job, literals(1300, "1")).await.unwrap();
    for (inputs, why) in [
        (literals(3001, ""), "150000 bytes of a message"),
        (literals(3, &"\"".repeat(32_000)), "passed on together"),
        (literals(1, &"x".repeat(40_000)), "literal values"),
        (literals(10, &"x".repeat(30_000)), "passed on together"),
    ] {
        let error = results.stage_inputs(job, inputs).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn a_result_carries_its_checksum_and_must_be_what_the_agent_wrote() {
    let (_folder, results, job, execution) = stage();
    let path = format!("{execution}/r/x.txt");
    // The first one has the right number of bytes, but they are others: half-written, or written twice.
    for (written, good) in [("abd", false), ("abc", true), ("abc", true)] {
        write(&results, &path, written);
        let mut wanted = output("r", &path, 3);
        let Value::Complex { content: Content::Shared(file), .. } = &mut wanted.value else { panic!() };
        let abc = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        file.sha256 = Some(abc.into());
        match results.collect(job, execution.clone(), vec![wanted]).await {
            Ok(outputs) => {
                assert!(good);
                let Value::Complex { content: Content::Shared(file), .. } = &outputs[0].value else {
                    panic!()
                };
                assert_eq!(file.sha256.as_deref(), Some(abc.to_lowercase().as_str()));
            }
            Err(error) => {
                assert!(!good, "{error}");
                assert!(error.to_string().contains("x.txt` is not what the agent wrote"), "{error}");
                assert!(!results.store().join(format!("{job}/r/x.txt")).exists());
            }
        }
    }
    // Without one from the agent it is made here.
    write(&results, &path, "abc");
    let outputs = results.collect(job, execution, vec![output("r", &path, 3)]).await.unwrap();
    let Value::Complex { content: Content::Shared(file), .. } = &outputs[0].value else { panic!() };
    assert!(file.sha256.as_deref().is_some_and(|sum| sum.starts_with("ba7816bf")));
}

#[tokio::test]
async fn a_vanished_folder_and_a_store_that_cannot_be_written_are_named() {
    let (_folder, results, job, execution) = stage();
    let path = format!("{execution}/r/x.txt");
    write(&results, &path, "abc");
    std::fs::remove_dir(results.store()).unwrap();
    std::fs::write(results.store(), "in the way").unwrap();
    let error = results.collect(job, execution.clone(), vec![output("r", &path, 3)]).await.unwrap_err();
    assert!(
        error.to_string().contains(&results.store().join(job.to_string()).display().to_string()),
        "{error}"
    );
    std::fs::remove_dir_all(results.shared().unwrap()).unwrap();
    let error = results.collect(job, execution, vec![output("r", &path, 3)]).await.unwrap_err();
    assert!(error.to_string().contains("do both sides see the same shared folder?"), "{error}");
}
