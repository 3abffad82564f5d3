//! What the service manager is told: systemd by `sd_notify(3)`, others nothing.
//!
//! Without `NOTIFY_SOCKET`, which systemd sets for units of `Type=notify` and `notify-reload`, nothing
//! happens. A message that cannot be delivered is logged and no failure.

/// The program serves; `status` says in a line what.
pub fn ready(status: &str) {
    #[cfg(target_os = "linux")]
    tell(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(status),
    ]);
    #[cfg(not(target_os = "linux"))]
    let _ = status;
}

/// The configuration is being loaded anew; [`ready`] says when that is over.
pub fn reloading() {
    #[cfg(target_os = "linux")]
    {
        // Type=notify-reload wants to know when, to tell this reload from the last one.
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[sd_notify::NotifyState::Reloading, now]),
            Err(_) => tell(&[sd_notify::NotifyState::Reloading]),
        }
    }
}

/// The program is about to end.
pub fn stopping() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Stopping]);
}

/// What it does, in a line.
pub fn status(text: &str) {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Status(text)]);
    #[cfg(not(target_os = "linux"))]
    let _ = text;
}

#[cfg(target_os = "linux")]
fn tell(what: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
