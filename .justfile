# One command each. `just --list` shows them; nothing here is needed that plain cargo and tests/run cannot do.

# Format, lints, documentation, architecture rules, and licences where cargo-deny is installed.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
    cargo test -p e2e --test architecture
    if command -v cargo-deny >/dev/null; then cargo deny --config .cargo/deny.toml check; fi

# Unit tests of all crates.
test:
    cargo test --workspace --exclude e2e

# End-to-end tests: real programs, real servers, real clients.
e2e:
    cargo build -p wps-orchestrator -p wps-remote-agent
    cargo test -p e2e

# Everything, as a fresh machine would do it.
all:
    tests/run

# Speed and memory against a bare fork, exec and wait.
bench:
    cargo build --release -p wps-orchestrator -p wps-remote-agent
    cargo run --release -p e2e --bin bench

# Write the golden documents anew; look at the diff before you commit it.
golden:
    UPDATE_GOLDEN=1 cargo test --workspace

# Everything on this machine: embedded parts, ready services.
dev:
    cargo run --release -p quickstart

# Hostile bytes against everything that reads files, requests and output: 10 minutes for each target.
fuzz:
    tests/fuzz/run 600
