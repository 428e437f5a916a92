//! `check` and `describe`: files in, explanations out.
use std::process::ExitCode;
use super::Looking;
pub(super) fn check(_: &Looking) -> ExitCode { ExitCode::SUCCESS }
pub(super) fn describe(_: &Looking) -> ExitCode { ExitCode::SUCCESS }
