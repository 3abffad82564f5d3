//! `credential_process`: a user's program that prints credentials as JSON (AWS CLI User Guide,
//! "Sourcing credentials with an external process"; the details are observed in AWS CLI 2.36).
//!
//! The SDK could run it too, but it uses a shell, which the AWS CLI does not. It also reads the output
//! without a limit, and leaves the program and its children running after the caller has given up.

mod runs;

use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_profile::{Process, parse_date};
use serde_json::{Number, Value};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::base::redacted::STARS;
use crate::platform::process_group::{EndOnDrop, command, waits_for_terminal};

pub(super) use runs::ProcessCaller;
pub use runs::RunningProcess;

/// Maximum bytes of standard output: credentials have a few kilobytes, session tokens included.
const MOST_OUTPUT: usize = 64 << 10;
/// Maximum bytes of standard error. The first [`KEPT_STDERR`] of them can become part of an error
/// message.
const MOST_STDERR: usize = 1 << 20;
const KEPT_STDERR: usize = 4 << 10;
/// Characters of a secret access key.
const KEY: usize = 40;
/// Time to wait for output after the program itself has ended: a child may hold the pipe open.
const GRACE: Duration = Duration::from_secs(1);

/// Time between two looks at a program that may be stopped.
const STOP_POLL: Duration = Duration::from_millis(500);

/// Name of the provider that the credentials carry.
const PROVIDER: &str = "ProcessProvider";

/// Runs the program of a profile and parses the credentials that it prints.
///
/// The program runs in a process group of its own, without shell and without input. The whole group
/// is killed when this future ends or is dropped.
///
/// # Errors
/// The problem with the program or its output. If the program fails, its standard error is included,
/// without words that look like a secret access key.
async fn credentials(process: &Process) -> Result<Credentials, String> {
    let Some((program, arguments)) = process.words.split_first() else {
        return Err("it is empty".to_owned());
    };
    let mut child = command(program, arguments)
        .spawn()
        .map_err(|error| not_started(program, &error))?;
    let _group = EndOnDrop::of(&child);
    let mut output = CapturedOutput::new(MOST_OUTPUT, MOST_OUTPUT);
    let mut errors = CapturedOutput::new(KEPT_STDERR, MOST_STDERR);
    let status = run(&mut child, &mut output, &mut errors).await?;
    if !status.success() {
        let said = without_keys(&String::from_utf8_lossy(&errors.bytes));
        return Err(format!("{}. Stderr: {said}", in_words(status)));
    }
    let account = process
        .account_id
        .as_ref()
        .map(aws_profile::Setting::as_str);
    read(&output.bytes, account)
}

/// Returns the reason why a program does not start. Other tools run it in a shell.
fn not_started(program: &str, error: &io::Error) -> String {
    let shell = match program.starts_with('~') || program.contains(['$', '=']) {
        true => "; it runs without a shell, so ~, $VARIABLE and NAME=VALUE have no effect",
        false => "",
    };
    format!("{program} cannot be started: {error}{shell}")
}

/// Replaces words that look like a secret access key with stars: 40 characters of base64 with upper
/// and lower case letters and digits. A failing program may print the key that it holds.
fn without_keys(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/+=".contains(c);
    let is_key = |word: &str| {
        let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
        word.len() == KEY
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit)
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !is_part(c)).unwrap_or(word.len()));
        // In `key=WORD` the sign is not part of the word behind it.
        let (name, value) = word.split_at(word.len().saturating_sub(KEY));
        let named = name.is_empty() || name.ends_with('=');
        out.push_str(before);
        match named && is_key(value) {
            true => out.extend([name, STARS]),
            false => out.push_str(word),
        }
        rest = after;
    }
    out + rest
}

fn in_words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

/// Waits until the program has ended and its output is read.
async fn run(
    child: &mut Child,
    output: &mut CapturedOutput,
    errors: &mut CapturedOutput,
) -> Result<ExitStatus, String> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        tokio::try_join!(
            output.fill(stdout, "standard output"),
            errors.fill(stderr, "standard error"),
        )
        .map(|_| ())
    };
    let mut reading = pin!(reading);
    let failed = |error: io::Error| format!("cannot wait for it: {error}");
    loop {
        tokio::select! {
            read = &mut reading => {
                read?;
                return child.wait().await.map_err(failed);
            }
            ended = child.wait() => {
                let status = ended.map_err(failed)?;
                // A child that holds the pipe longer has no credentials to print.
                timeout(GRACE, reading).await.unwrap_or(Ok(()))?;
                return Ok(status);
            }
            () = sleep(STOP_POLL) => if waits_for_terminal(child) {
                return Err("it waits for input from the terminal, and gets none".to_owned());
            },
        }
    }
}

/// Output of a program, up to a limit.
struct CapturedOutput {
    bytes: Zeroizing<Vec<u8>>,
    kept: usize,
    most: usize,
}

impl CapturedOutput {
    fn new(kept: usize, most: usize) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(kept));
        Self { bytes, kept, most }
    }

    /// Reads to the end. Cancel-safe: bytes already read are kept.
    async fn fill(
        &mut self,
        stream: Option<impl AsyncRead + Unpin>,
        name: &str,
    ) -> Result<(), String> {
        let Some(mut stream) = stream else {
            return Ok(());
        };
        let mut chunk = Zeroizing::new(vec![0; 8 << 10]);
        let mut read = 0;
        loop {
            let count = stream.read(&mut chunk).await;
            let count = count.map_err(|error| format!("its {name} cannot be read: {error}"))?;
            if count == 0 {
                return Ok(());
            }
            read += count;
            if read > self.most {
                return Err(format!(
                    "it wrote more than {} KiB to {name}",
                    self.most >> 10
                ));
            }
            let room = self.kept - self.bytes.len();
            self.bytes.extend_from_slice(&chunk[..count.min(room)]);
        }
    }
}

/// Parses the credentials in the output. Names are case-sensitive, and `null` counts as absent.
/// `account` is that of the profile, for output without `AccountId`.
fn read(output: &[u8], account: Option<&str>) -> Result<Credentials, String> {
    let document: Value = serde_json::from_slice(output).map_err(|error| {
        // The messages of serde_json may quote the output.
        let at = (error.line(), error.column());
        format!("its output is not JSON (line {}, column {})", at.0, at.1)
    })?;
    let Value::Object(members) = document else {
        return Err("its output is not a JSON object".to_owned());
    };
    match members.get("Version") {
        Some(Value::Number(version)) if is_one(version) => {}
        Some(Value::Number(other)) => {
            return Err(format!("its output has Version {other}, expected 1"));
        }
        Some(Value::String(_)) => {
            return Err("Version in its output is a string, expected the number 1".to_owned());
        }
        _ => return Err("its output has no Version, expected 1".to_owned()),
    }
    let text = |name: &str| match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("{name} in its output is not a string")),
    };
    let required = |name: &str| text(name)?.ok_or_else(|| format!("its output has no {name}"));
    let mut credentials = Credentials::builder()
        .access_key_id(required("AccessKeyId")?)
        .secret_access_key(required("SecretAccessKey")?)
        .provider_name(PROVIDER);
    credentials.set_session_token(text("SessionToken")?.map(str::to_owned));
    credentials.set_expiry(text("Expiration")?.map(time).transpose()?);
    let account = members.get("AccountId").and_then(Value::as_str).or(account);
    credentials.set_account_id(account.map(Into::into));
    Ok(credentials.build())
}

/// Returns `true` for the number 1 in any form, such as `1.0`.
fn is_one(number: &Number) -> bool {
    number.as_f64().is_some_and(|value| value == 1.0)
}

/// Parses the time of expiry. All times before 1970 become 1970: they have passed.
fn time(text: &str) -> Result<SystemTime, String> {
    let seconds = parse_date(text).ok_or_else(|| {
        "Expiration in its output is not a time with an offset, such as 2030-01-31T12:00:00Z"
            .to_owned()
    })?;
    let since_1970 = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(SystemTime::UNIX_EPOCH + since_1970)
}

#[cfg(test)]
mod tests;
