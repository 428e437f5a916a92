//! The stand-in for the Python agent as a program, for the example of a migration: it serves `default.Play` until it is
//! killed. Connects plainly, so only to this host.

use std::time::Duration;

use e2e::bus::Login;
use e2e::old_agent::{OldAgent, OldAgentSpec};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, domain, user, password, room_password, host] = arguments.as_slice() else {
        eprintln!("usage: old-agent PORT DOMAIN USER PASSWORD ROOM_PASSWORD HOST");
        std::process::exit(2);
    };
    let login = Login::plain(port, domain, user, password, room_password);
    let _agent = OldAgent::start(login, OldAgentSpec::play(host));
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
