//! `credential_process`: a user's program that prints credentials as JSON (AWS SDKs and
//! Tools Reference Guide, "Process credential provider").
//!
//! The SDK could run it too, but it reads the output without a limit, and leaves the program and
//! its children running after the caller has given up.

use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::base::redacted::STARS;
use crate::platform::process_group::{EndOnDrop, shell};

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

/// Name of the provider that the credentials carry.
const PROVIDER: &str = "ProcessProvider";

/// Runs `command` and parses the credentials that it prints. `account` is that of the profile, for
/// output without `AccountId`.
///
/// The program runs in a process group of its own, without input. The whole group is killed when
/// this future ends or is dropped.
///
/// # Errors
/// The problem with the program or its output. Standard error is included, without words that look
/// like a secret access key.
pub(super) async fn credentials(
    command: &str,
    account: Option<&str>,
) -> Result<Credentials, String> {
    let mut child = shell(command)
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    let _group = EndOnDrop::of(&child);
    let mut output = CapturedOutput::new(MOST_OUTPUT, MOST_OUTPUT);
    let mut errors = CapturedOutput::new(KEPT_STDERR, MOST_STDERR);
    let status = run(&mut child, &mut output, &mut errors).await?;
    if !status.success() {
        let said = without_keys(&String::from_utf8_lossy(&errors.bytes));
        return Err(format!("{}. Stderr: {said}", in_words(status)));
    }
    read(&output.bytes, account)
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
    tokio::select! {
        read = &mut reading => {
            read?;
            child.wait().await.map_err(failed)
        }
        ended = child.wait() => {
            let status = ended.map_err(failed)?;
            // A child that holds the pipe longer has no credentials to print.
            timeout(GRACE, reading).await.unwrap_or(Ok(()))?;
            Ok(status)
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

/// Parses the credentials in the output. JSON keys are compared without regard to case, as the SDK
/// does.
fn read(output: &[u8], account: Option<&str>) -> Result<Credentials, String> {
    let document: Value = serde_json::from_slice(output).map_err(|error| {
        // The messages of serde_json may quote the output.
        let at = (error.line(), error.column());
        format!("its output is not JSON (line {}, column {})", at.0, at.1)
    })?;
    let Value::Object(members) = document else {
        return Err("its output is not a JSON object".to_owned());
    };
    match member(&members, "Version").and_then(Value::as_i64) {
        Some(1) => {}
        Some(other) => return Err(format!("its output has Version {other}, expected 1")),
        None => return Err("its output has no Version, expected 1".to_owned()),
    }
    let text = |name: &str| match member(&members, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} in its output is not a string")),
    };
    let required = |name: &str| text(name)?.ok_or_else(|| format!("its output has no {name}"));
    let expires = text("Expiration")?.map(|text| time(&text)).transpose()?;
    let mut credentials = Credentials::builder()
        .access_key_id(required("AccessKeyId")?)
        .secret_access_key(required("SecretAccessKey")?)
        .provider_name(PROVIDER);
    credentials.set_session_token(text("SessionToken")?);
    credentials.set_expiry(expires);
    let account = text("AccountId")?.or_else(|| account.map(str::to_owned));
    credentials.set_account_id(account.map(Into::into));
    Ok(credentials.build())
}

fn member<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut all = members.iter();
    all.find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn time(text: &str) -> Result<SystemTime, String> {
    let parsed = DateTime::from_str(text, Format::DateTimeWithOffset).ok();
    parsed
        .and_then(|time| SystemTime::try_from(time).ok())
        .ok_or_else(|| {
            "Expiration in its output is not a time such as 2030-01-31T12:00:00Z".to_owned()
        })
}

#[cfg(test)]
mod tests;
