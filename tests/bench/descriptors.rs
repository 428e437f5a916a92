//! A thousand descriptors in one folder: until the agent has read them, until the orchestrator offers them, and until a change
//! of one of them is seen by clients.

use std::time::{Duration, Instant};

use e2e::http::Http;
use e2e::{tell, wait_until};

const COUNT: usize = 1000;
const LONG: Duration = Duration::from_secs(120);

/// As an administrator might write it: some inputs of several kinds.
fn text(n: usize, title: &str) -> String {
    format!(
        "[Description]\nservice = P{n}\nnamespace = bench\ntitle = {title}\ndescription = Number {n} of many\n\
         executable = /bin/true\n\n[Input]\n\
         name = {{\"type\": \"string\", \"description\": \"A name\", \"default\": \"x\"}}\n\
         interval = {{\"type\": \"double\", \"range\": [0, 100], \"default\": 50}}\n\
         data = {{\"type\": \"application/json\", \"min\": 0}}\n\n\
         [Output]\nresult = {{\"type\": \"string\", \"file\": \"none.txt\", \"required\": false}}\n"
    )
}

/// Measures and prints.
pub(crate) fn measure() {
    e2e::run("bench-descriptors", |site| {
        site.expect_warning("");
        let orchestrator = site.orchestrator().start();
        let address = orchestrator.address();
        let mut builder = site.agent("many");
        for n in 0..COUNT {
            builder = builder.file(&format!("p{n}.ini"), &text(n, "before"));
        }
        let begin = Instant::now();
        let agent = builder.start();
        let until = |what: &str, test: &mut dyn FnMut() -> bool| {
            assert!(wait_until(LONG, || test().then_some(())).is_some(), "not within {LONG:?}: {what}");
            begin.elapsed()
        };
        let loaded = until("descriptors read", &mut || agent.program().log().contains("agent starts"));
        let mut http = Http::new(address);
        let mut get = |path: &str| http.get(path).map(|answer| answer.text()).unwrap_or_default();
        let announced = until("descriptors announced", &mut || {
            let health: serde_json::Value = serde_json::from_str(&get("/health")).unwrap_or_default();
            health["processes"] == COUNT
        });
        let path = "/wps?service=WPS&version=1.0.0&request=DescribeProcess&identifier=bench:P500";
        assert!(get(path).contains("before"));
        // The notifications of the first files have been worked off.
        std::thread::sleep(Duration::from_secs(3));
        let changed = Instant::now();
        agent.write("p500.ini", &text(500, "after"));
        until("change seen", &mut || get(path).contains("after"));
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        tell(&format!(
            "{COUNT} descriptors: read {:.0} ms after the agent's start, all offered by the orchestrator {:.0} ms later; \
             a change of one is seen by clients after {:.0} ms (150 of them until the file counts as still); \
             agent resident {:.1} MiB",
            ms(loaded),
            ms(announced - loaded),
            ms(changed.elapsed()),
            agent.program().resident() as f64 / f64::from(1 << 20)
        ));
    });
}
