//! Random bytes, and generated files for the comparison with Python.

use crate::{FileInput, Files, Request, resolve};

/// The generator `xorshift64*`, which needs no crate.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(value).unwrap() % limit
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const SEED: u64 = 0x5EED_0014;

#[test]
fn no_bytes_cause_a_panic() {
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let words = [
        "[profile a]",
        "[default]",
        "[a]",
        "[DEFAULT]",
        "[sso-session s]",
        "\n",
        "\r",
        " ",
        "\t",
        "=",
        ":",
        "role_arn",
        "source_profile",
        "a",
        "credential_source",
        "Environment",
        "sso_session",
        "s",
        "sso_account_id",
        "credential_process",
        "'",
        "\"",
        "\\",
        "#",
        "\u{a0}",
        "aws_access_key_id",
        "aws_secret_access_key",
        "[",
        "]",
        "\u{feff}",
        "ä",
        "\0",
    ];
    for round in 0..20_000 {
        let file = |random: &mut Random| {
            let mut bytes = Vec::new();
            for _ in 0..random.below(60) {
                match random.below(8) {
                    0 => bytes.push(u8::try_from(random.below(256)).unwrap()),
                    _ => bytes.extend(random.pick(&words).bytes()),
                }
            }
            bytes
        };
        let (config, credentials) = (file(&mut random), file(&mut random));
        let files = Files::parse(
            ("c", FileInput::Contents(&config)),
            ("s", FileInput::Contents(&credentials)),
        );
        assert!(
            files.problems().count() <= config.len() + credentials.len() + 8,
            "{round}"
        );
        for name in files.profile_names() {
            let request = Request {
                profile: Some(name),
                ..Request::default()
            };
            if let Err(error) = resolve(&request, &|_| None, &files) {
                assert!(!error.to_string().is_empty());
            }
        }
        let _ = resolve(
            &Request::default(),
            &|name| Some(name.to_lowercase()),
            &files,
        );
    }
}

#[test]
fn time_and_memory_are_linear() {
    // The chain has a profile per 40 bytes, and each inherits a value of 1 MiB.
    let mut config = format!("[DEFAULT]\nexternal_id = {}\n", "x".repeat(1 << 20));
    for at in 0..20_000 {
        config += &format!(
            "[profile p{at}]\nrole_arn = r\nsource_profile = p{}\n",
            at + 1
        );
    }
    config += "[profile p20000]\naws_access_key_id = X\naws_secret_access_key = S\n";
    let lines = "x\n".repeat(1 << 20);
    let faults = format!("[{}]\n{lines}", "y".repeat(1 << 20));
    let files = Files::parse(
        ("c", FileInput::Contents(config.as_bytes())),
        ("s", FileInput::Contents(faults.as_bytes())),
    );
    let request = Request {
        profile: Some("p0"),
        ..Request::default()
    };
    let identity = resolve(&request, &|_| None, &files).unwrap();
    let crate::Source::AssumeRole(chain) = identity.source else {
        panic!("{:?}", identity.source);
    };
    assert_eq!(chain.roles.len(), 20_000);
    assert_eq!(files.problems().count(), 1);
}
