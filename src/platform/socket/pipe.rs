//! Control socket on Windows: a named pipe that only this user can open.
//!
//! Its name contains the process id and a random number, and so does the name of an empty file in
//! the directory for files of running processes, by which other processes find it. Another user can
//! neither open the pipe nor occupy its name in advance. After the process was killed, another user
//! could create a pipe of that name, so clients check the user of the process behind it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::OwnedHandle;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use interprocess::os::windows::named_pipe::tokio::{DuplexPipeStream, PipeListener};
use interprocess::os::windows::named_pipe::{PipeListenerOptions, pipe_mode};
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;
use widestring::U16CString;

use super::{SocketError, failed};
use crate::platform::processes;
use crate::platform::user::{UserId, own_user};

/// Size in bytes of the buffers of a connection.
const BUFFER: u32 = 64 * 1024;
/// Interval of attempts to connect while the server is busy with another client.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// `ERROR_PIPE_BUSY` in winerror.h.
const PIPE_BUSY: i32 = 231;
/// `FILE_FLAG_OVERLAPPED` in winbase.h, which asynchronous operations need.
const OVERLAPPED: u32 = 0x4000_0000;
/// `SECURITY_IDENTIFICATION` in winbase.h: the server may learn the user of the client, and not act
/// as that user.
const IDENTIFICATION: u32 = 0x0001_0000;

/// Returns the process id in the name of a pipe's file, `pgiam.<pid>.<number>.pipe`.
pub(super) fn pid_in(name: &str) -> Option<u32> {
    let (pid, number) = name
        .strip_prefix("pgiam.")?
        .strip_suffix(".pipe")?
        .split_once('.')?;
    let (pid, number) = (pid.parse().ok()?, Uuid::try_parse(number).ok()?);
    // In canonical form only, not "+7" or "007".
    (file_name(pid, number) == name).then_some(pid)
}

fn file_name(pid: u32, number: Uuid) -> String {
    format!("pgiam.{pid}.{}.pipe", number.simple())
}

/// Returns the path of the pipe with this file.
fn pipe_of(file: &Path) -> PathBuf {
    Path::new(r"\\.\pipe\").join(file.file_stem().unwrap_or_default())
}

/// Removes the file of a pipe that does not exist any more. A pipe exists before its file.
pub(super) fn remove_if_dead(file: &Path) {
    if let Err(error) = open(&pipe_of(file))
        && error.kind() == io::ErrorKind::NotFound
    {
        // It may have been removed meanwhile, which is fine.
        _ = fs::remove_file(file);
    }
}

/// A listening control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct ControlListener {
    listener: PipeListener<pipe_mode::Bytes, pipe_mode::Bytes>,
    file: PathBuf,
    user: UserId,
}

impl ControlListener {
    pub(super) fn bind(dir: &Path) -> Result<Self, SocketError> {
        let file = dir.join(file_name(std::process::id(), Uuid::new_v4()));
        let pipe = pipe_of(&file);
        let user =
            own_user().ok_or_else(|| io::Error::other("the user of this process is unknown"));
        let created = user.and_then(|user| Ok((create(&pipe, user)?, user)));
        let (listener, user) = created.map_err(failed("listen on", &pipe))?;
        let made = OpenOptions::new().write(true).create_new(true).open(&file);
        made.map_err(failed("create", &file))?;
        Ok(Self {
            listener,
            file,
            user,
        })
    }

    /// Returns the next client, and the user it belongs to: the descriptor of the pipe admits no
    /// other user than this one. Cancel-safe.
    ///
    /// # Errors
    /// Any error of the system.
    pub async fn accept(&self) -> io::Result<(ControlStream, UserId)> {
        let stream = self.listener.accept().await?;
        Ok((ControlStream(stream), self.user))
    }

    /// Returns the path of the file with the name of the pipe.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        // The file may have been removed by hand. The pipe ends right after this.
        _ = fs::remove_file(&self.file);
    }
}

/// Creates the first instance of a pipe, which fails if the name is in use (not in Wine 8, which
/// ignores `FILE_FLAG_FIRST_PIPE_INSTANCE`).
fn create(
    pipe: &Path,
    user: UserId,
) -> io::Result<PipeListener<pipe_mode::Bytes, pipe_mode::Bytes>> {
    let descriptor = U16CString::from_str(descriptor(user)).map_err(io::Error::other)?;
    let mut options = PipeListenerOptions::new().path(pipe);
    options.security_descriptor = Some(SecurityDescriptor::deserialize(&descriptor)?);
    options.accept_remote = false;
    options.input_buffer_size_hint = BUFFER;
    options.output_buffer_size_hint = BUFFER;
    options.create_tokio_duplex::<pipe_mode::Bytes>()
}

/// Returns a security descriptor that lets this user alone do anything, and inherits nothing
/// ([MS-DTYP], 2.5.1).
fn descriptor(user: UserId) -> String {
    format!("O:{user}D:P(A;;GA;;;{user})")
}

/// A connection to or from a control socket.
#[derive(Debug)]
pub struct ControlStream(DuplexPipeStream<pipe_mode::Bytes>);

impl ControlStream {
    /// Connects to the pipe with this file, and checks that its process is of this user.
    /// Cancel-safe.
    pub(super) async fn connect(file: &Path) -> io::Result<Self> {
        let pipe = pipe_of(file);
        let handle = loop {
            match open(&pipe) {
                Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                opened => break opened?,
            }
        };
        let stream = DuplexPipeStream::try_from(handle).map_err(|error| {
            let invalid = || io::ErrorKind::InvalidData.into();
            error.cause.unwrap_or_else(invalid)
        })?;
        let server = stream.server_process_id()?;
        let user = tokio::task::spawn_blocking(move || processes::user_of(server)).await?;
        match (user, own_user()) {
            (Some(server), Some(own)) if server == own => Ok(Self(stream)),
            (Some(server), _) => Err(not_ours(format!("it runs as user {server}"))),
            (None, _) => Err(not_ours(
                "Windows does not report its user; if it runs as administrator, use a terminal of the administrator".to_owned(),
            )),
        }
    }
}

fn not_ours(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

fn open(pipe: &Path) -> io::Result<OwnedHandle> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(OVERLAPPED);
    options.security_qos_flags(IDENTIFICATION);
    options.open(pipe).map(OwnedHandle::from)
}

impl AsyncRead for ControlStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_process_ids() {
        let number = Uuid::new_v4();
        let name = file_name(4711, number);
        assert_eq!(pid_in(&name), Some(4711));
        assert_eq!(
            pipe_of(Path::new(&name)).to_string_lossy().len(),
            9 + name.len() - 5
        );
        for other in [
            "pgiam.7.pipe".to_owned(),
            "pgiam.7.x.pipe".to_owned(),
            format!("pgiam.07.{}.pipe", number.simple()),
            format!("pgiam.7.{number}.pipe"),
            format!("pgiam.7.{}.sock", number.simple()),
        ] {
            assert_eq!(pid_in(&other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_leftover_is_removed_and_a_served_pipe_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let listener = ControlListener::bind(dir.path()).unwrap();
        remove_if_dead(listener.path());
        assert!(listener.path().exists(), "it is served");
        let leftover = dir.path().join(file_name(4711, Uuid::new_v4()));
        fs::write(&leftover, "").unwrap();
        remove_if_dead(&leftover);
        assert!(!leftover.exists());
    }
}
