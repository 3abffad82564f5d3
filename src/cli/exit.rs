//! The exit codes, as `pgiam --help` documents them.

/// Something failed.
pub const FAILED: u8 = 1;
/// Usage or configuration error (clap's own code for it, too).
pub const USAGE: u8 = 2;
/// pgiam is not running, or timed out.
pub const NOT_RUNNING: u8 = 3;
/// `pgiam serve --test`: a target failed the connection test.
pub const TEST_FAILED: u8 = 4;
/// `pgiam run`: failed before its command was started (as env(1) and timeout(1) have it).
pub const RUN_FAILED: u8 = 125;
/// `pgiam run`: the command exists but cannot be executed.
pub const CANNOT_RUN: u8 = 126;
/// `pgiam run`: the command was not found.
pub const NOT_FOUND: u8 = 127;
/// `pgiam run`: a signal ended the command; its number is added.
pub const SIGNALLED: u8 = 128;
