//! Notifications to the service manager: to systemd by `sd_notify(3)`, to others none.
//!
//! Without `NOTIFY_SOCKET`, which systemd sets for units of `Type=notify` and `notify-reload`,
//! nothing is sent. A failed notification is logged and is not an error.

/// Reports that the program serves; `status` describes it in a line.
pub fn ready(status: &str) {
    #[cfg(target_os = "linux")]
    tell(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(status),
    ]);
    #[cfg(not(target_os = "linux"))]
    let _ = status;
}

/// Reports that the configuration is being reloaded; [`ready`] ends this state.
pub fn reloading() {
    #[cfg(target_os = "linux")]
    {
        // Type=notify-reload needs the time, to distinguish this reload from the last one.
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[sd_notify::NotifyState::Reloading, now]),
            Err(_) => tell(&[sd_notify::NotifyState::Reloading]),
        }
    }
}

/// Reports that the program is about to end.
pub fn stopping() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Stopping]);
}

/// Reports the current activity in a line.
pub fn status(text: &str) {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Status(text)]);
    #[cfg(not(target_os = "linux"))]
    let _ = text;
}

#[cfg(target_os = "linux")]
fn tell(what: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
