//! birdy, unmodified: processes as Python functions.

use std::process::Command;

use e2e::fixtures::{FAIL, descriptor};
use e2e::{python, root, skip};

#[test]
fn birdy_calls_processes_as_functions() {
    // A package of the same name has nothing to do with WPS.
    let python = match python::python_with(&["birdy.client.base"]) {
        Ok(python) => python,
        Err(why) => return skip("birdy_calls_processes_as_functions", &why),
    };
    e2e::run("birdy", |site| {
        site.expect_warning("test:Fail");
        let orchestrator = site.orchestrator().start();
        let _agent = site
            .agent("a")
            .service("echo")
            .service("sleep")
            .file("fail.ini", &descriptor("Fail", "fail.sh", ""))
            .file("fail.sh", FAIL)
            .start();
        orchestrator.wait_for(&["demo:Echo", "demo:Sleep", "test:Fail"]);
        let output = Command::new(python)
            .arg(root().join("tests/clients/birdy_wps1.py"))
            .arg(orchestrator.url())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    });
}
