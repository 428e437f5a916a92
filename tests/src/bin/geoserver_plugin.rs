//! The stand-in for GeoServer's plugin as a program, for the example of a migration: it waits for a process, executes it, and
//! prints what comes of it. Connects plainly, so only to this host.

#![expect(clippy::print_stdout, reason = "what it prints is its result")]

use e2e::bus::Login;
use e2e::geoserver::{GeoServer, State};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, domain, user, password, room_password, process, inputs @ ..] = arguments.as_slice() else {
        eprintln!(
            "usage: geoserver-plugin PORT DOMAIN USER PASSWORD ROOM_PASSWORD NAMESPACE:SERVICE [INPUT=VALUE ...]"
        );
        std::process::exit(2);
    };
    let login = Login::plain(port, domain, user, password, room_password);
    let namespace = process.split(':').next().unwrap_or_default();
    let geoserver = GeoServer::start(&login, &[namespace], true);
    let registered = geoserver.wait_for(process);
    println!("registered: {process} by {}: {}", geoserver.nodes().join(" "), registered.description);
    let inputs: Vec<(&str, &str)> = inputs.iter().filter_map(|pair| pair.split_once('=')).collect();
    let id = geoserver.execute(process, &inputs);
    let state = geoserver.wait(&id);
    let job = geoserver.job(&id);
    println!(
        "job {id}: occupant {}, progress {:?}, {} log line(s)",
        job.occupant,
        job.progress,
        job.log.len()
    );
    for fault in geoserver.faults() {
        println!("the plugin would stumble over: {fault}");
    }
    match state {
        State::Completed(outputs) => {
            for (name, bytes) in outputs {
                println!("{name}: {}", String::from_utf8_lossy(&bytes).trim_end());
            }
        }
        State::Failed(why) => {
            println!("failed: {why}");
            std::process::exit(1);
        }
        State::Queued | State::Executing => {}
    }
}
