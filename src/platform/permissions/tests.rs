use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::*;

const US: u32 = 1000;
const ROOT: u32 = 0;
const OTHER: u32 = 1001;

#[test]
fn the_table_decides() {
    use FileRole::{
        CaFile, Certificate, CertificateDir, ConfigFile, Key, PasswordFile, ProjectFile,
        SecurityFile, SocketDir, StateDir,
    };
    let allowed = [
        (StateDir, US, 0o700),
        (StateDir, US, 0o755),
        (StateDir, US, 0o1777),
        (StateDir, ROOT, 0o755),
        // A volume of Kubernetes, and one with fsGroup.
        (StateDir, ROOT, 0o777),
        (StateDir, ROOT, 0o2777),
        (SocketDir, US, 0o700),
        (CertificateDir, US, 0o700),
        // A mounted secret.
        (CertificateDir, ROOT, 0o3777),
        (Key, US, 0o600),
        (Key, US, 0o400),
        (Key, ROOT, 0o640),
        (Key, ROOT, 0o440),
        (Certificate, US, 0o644),
        (Certificate, ROOT, 0o444),
        (PasswordFile, US, 0o600),
        (PasswordFile, US, 0o400),
        (PasswordFile, US, 0o700),
        (PasswordFile, ROOT, 0o440),
        (PasswordFile, ROOT, 0o640),
        (ConfigFile, OTHER, 0o666),
        (ProjectFile, US, 0o644),
        (ProjectFile, ROOT, 0o644),
        (SecurityFile, US, 0o664),
        (SecurityFile, OTHER, 0o644),
        (CaFile, OTHER, 0o644),
        (CaFile, ROOT, 0o644),
    ];
    for (role, owner, mode) in allowed {
        let judged = judge(role, Path::new("/x"), (owner, mode), US);
        assert!(judged.is_ok(), "{role:?} {owner} {mode:04o}: {judged:?}");
    }
    let refused = [
        (StateDir, OTHER, 0o700),
        (StateDir, US, 0o777),
        (StateDir, US, 0o770),
        (SocketDir, OTHER, 0o700),
        (SocketDir, ROOT, 0o700),
        (SocketDir, US, 0o750),
        (SocketDir, US, 0o1777),
        (CertificateDir, OTHER, 0o700),
        (CertificateDir, US, 0o777),
        (Key, OTHER, 0o600),
        (Key, US, 0o640),
        (Key, US, 0o644),
        (Key, ROOT, 0o644),
        (Key, ROOT, 0o660),
        (Certificate, OTHER, 0o644),
        (Certificate, US, 0o664),
        (Certificate, ROOT, 0o666),
        (PasswordFile, OTHER, 0o600),
        (PasswordFile, US, 0o640),
        (PasswordFile, ROOT, 0o444),
        (PasswordFile, ROOT, 0o660),
        (ProjectFile, OTHER, 0o644),
        (ProjectFile, US, 0o664),
        (ProjectFile, US, 0o646),
        (ProjectFile, ROOT, 0o666),
        (SecurityFile, US, 0o666),
        (SecurityFile, OTHER, 0o646),
        (CaFile, ROOT, 0o666),
    ];
    for (role, owner, mode) in refused {
        let judged = judge(role, Path::new("/a b"), (owner, mode), US);
        let said = judged.unwrap_err().to_string();
        let remedy = match owner {
            OTHER if matches!(role, Key | Certificate | CertificateDir) => {
                "creates a new one: rm -r "
            }
            OTHER if role == ProjectFile => "name it: --config '/a b'",
            OTHER if !matches!(role, SecurityFile | CaFile) => "chown 1000 '/a b'",
            ROOT if role == SocketDir => "chown 1000 '/a b'",
            _ => "restrict it: chmod ",
        };
        assert!(said.contains(role.rule().name), "{said}");
        assert!(said.contains(remedy), "{role:?} {owner} {mode:04o}: {said}");
    }
    let judged = judge(PasswordFile, Path::new("/x"), (ROOT, 0o444), US);
    let said = judged.unwrap_err().to_string();
    assert!(said.ends_with("chmod 640 /x"), "{said}");
    // When pgiam runs as root, root's files count as its own.
    judge(PasswordFile, Path::new("/x"), (ROOT, 0o640), ROOT).unwrap_err();
    judge(StateDir, Path::new("/x"), (ROOT, 0o777), ROOT).unwrap_err();
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_are_judged_where_links_lead_and_paths_may_be_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(std::ffi::OsStr::from_bytes(b"se\xffcret"));
    std::fs::write(&file, "x").unwrap();
    set_mode(&file, 0o600);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(read(FileRole::PasswordFile, &link, 10).unwrap(), b"x");
    set_mode(&file, 0o644);
    for path in [&link, &file] {
        let error = read(FileRole::PasswordFile, path, 10).unwrap_err();
        assert!(
            matches!(error, PathError::Open { mode: 0o644, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_parent_that_everybody_writes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open_dir = dir.path().join("open");
    let inner = open_dir.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let file = inner.join("password");
    std::fs::write(&file, "x").unwrap();
    set_mode(&file, 0o600);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    read(FileRole::PasswordFile, &file, 10).unwrap();
    set_mode(&open_dir, 0o777);
    for path in [&file, &link] {
        let said = read(FileRole::PasswordFile, path, 10)
            .unwrap_err()
            .to_string();
        assert!(said.contains("can be replaced by other users"), "{said}");
        let chmod = format!("chmod o-w {}", open_dir.canonicalize().unwrap().display());
        assert!(said.contains(&chmod), "{said}");
    }
    let error = CheckedDir::open(FileRole::StateDir, &inner).unwrap_err();
    assert!(matches!(error, PathError::Parent { .. }), "{error}");
    set_mode(&open_dir, 0o1777);
    read(FileRole::PasswordFile, &file, 10).unwrap();
    CheckedDir::open(FileRole::StateDir, &inner).unwrap();
}

#[test]
fn what_is_no_file_or_too_long_is_refused_and_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
        let error = read(FileRole::ConfigFile, path, 10).unwrap_err();
        assert!(matches!(error, PathError::Kind { .. }), "{error}");
        assert!(
            error.to_string().contains("is not a regular file"),
            "{error}"
        );
    }
    let long = dir.path().join("long");
    std::fs::File::create(&long)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = read(FileRole::ConfigFile, &long, 10).unwrap_err();
    assert!(matches!(error, PathError::TooLong { .. }), "{error}");
    std::fs::write(&long, "0123456789").unwrap();
    assert_eq!(read(FileRole::ConfigFile, &long, 10).unwrap().len(), 10);
}

#[test]
fn a_directory_stays_the_one_that_was_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (checked, other) = (dir.path().join("tls"), dir.path().join("other"));
    for (path, text) in [(&checked, "ours"), (&other, "theirs")] {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("server.crt"), text).unwrap();
        set_mode(&path.join("server.crt"), 0o644);
    }
    let opened = CheckedDir::open(FileRole::CertificateDir, &checked).unwrap();
    std::fs::rename(&checked, dir.path().join("moved")).unwrap();
    std::fs::rename(&other, &checked).unwrap();
    let read = opened
        .read(FileRole::Certificate, "server.crt", 10)
        .unwrap();
    assert_eq!(read, b"ours");
    // A link to it is not accepted.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&checked, &link).unwrap();
    let error = CheckedDir::open(FileRole::CertificateDir, &link).unwrap_err();
    assert!(matches!(error, PathError::Kind { .. }), "{error}");
}
