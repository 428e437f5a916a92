//! Small services that behave in the ways that tests need, as descriptor and script. Nothing here starts anything.

/// A descriptor of the simplified dialect for a script beside it, with one output from `result.txt`.
pub fn descriptor(service: &str, script: &str, inputs: &str) -> String {
    format!(
        "[Description]\nservice = {service}\nnamespace = test\ntitle = {service}\ndescription = For tests\n\
         executable = {script}\n\n[Options]\nargformat = --key=value\nmax_running_time_seconds = 300\n\n\
         [Input]\n{inputs}\n\n[Output]\nresult = {{\"type\": \"text/plain\", \"file\": \"result.txt\"}}\n"
    )
}

/// Writes its name and nothing more: the quickest useful program.
pub const HELLO: &str = "#!/bin/sh\nprintf hello > result.txt\n";

/// Writes how many arguments it got, then each in full, between markers.
pub const ARGUMENTS: &str = "#!/bin/sh\n\
    printf '%s arguments' \"$#\" > result.txt\n\
    for a in \"$@\"; do printf '<%s>' \"$a\" >> result.txt; done\n";

/// Fails with exit code 3 after a line that says why.
pub const FAIL: &str = "#!/bin/sh\necho 'the disk is on fire'\nexit 3\n";

/// Ends well without writing what the descriptor promises.
pub const FORGETFUL: &str = "#!/bin/sh\nexit 0\n";

/// Says where it runs and stays until `release` appears beside the script.
pub const WAITING: &str = "#!/bin/sh\n\
    echo 'progress: 10'\n\
    printf '%s' \"$0\" > result.txt\n\
    while [ ! -e \"${0%/*}/release\" ]; do sleep 0.05; done\n\
    echo 'progress: 100'\n";

/// Ignores TERM, and so do its children and theirs.
pub const STUBBORN: &str = "#!/bin/sh\n\
    trap '' TERM INT HUP\n\
    if [ \"$1\" != child ]; then\n\
        \"$0\" child &\n\
        \"$0\" child &\n\
        echo 'progress: 50'\n\
    fi\n\
    while :; do sleep 0.2; done\n";

/// Puts a daemon into the background by forking twice with a session of its own; the daemon ignores TERM, closes all its
/// files and leaves the folder.
pub const DAEMON: &str = "#!/bin/sh\n\
    if [ \"$1\" = daemon ]; then trap '' TERM INT HUP; cd /; while :; do sleep 0.2; done; fi\n\
    setsid sh -c '\"$0\" daemon </dev/null >/dev/null 2>&1 &' \"$0\"\n\
    echo 'progress: 50'\n\
    while :; do sleep 0.2; done\n";
