//! Users and existence of other processes, on Windows.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::user::UserId;

/// Returns the user of each of these processes, in their order. `None` if the process is gone, or
/// if Windows does not let this process see its user: that is so for most processes of other users,
/// and for those that run as administrator. Blocks for some milliseconds, in which Windows lists
/// all processes.
pub(super) fn users_of(pids: &[u32]) -> Vec<Option<UserId>> {
    let system = refreshed(pids);
    let user = |pid: &u32| {
        let process = system.process(Pid::from_u32(*pid))?;
        let sid = process.user_id()?.to_string().parse().ok()?;
        Some(UserId::Sid(sid))
    };
    pids.iter().map(user).collect()
}

/// Returns the user of a process, as [`users_of`] does.
pub(super) fn user_of(pid: u32) -> Option<UserId> {
    users_of(&[pid]).pop().flatten()
}

/// Returns `true` if a process with this id exists. Blocks for some milliseconds.
pub(super) fn exists(pid: u32) -> bool {
    refreshed(&[pid]).process(Pid::from_u32(pid)).is_some()
}

/// Reads the processes anew: an id may belong to another process than the last time.
fn refreshed(pids: &[u32]) -> System {
    let pids: Vec<Pid> = pids.iter().map(|pid| Pid::from_u32(*pid)).collect();
    let user = ProcessRefreshKind::nothing().with_user(UpdateKind::Always);
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), false, user);
    system
}
