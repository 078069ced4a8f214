//! Unix sockets that listen at a path, and the file that each leaves there.
//!
//! A file outlives the process that made it, so a path that is taken may be one that nobody listens on: that is found out by
//! connecting. Servers that start at once must not take each other's new file for an old one, so whoever looks and replaces
//! holds a lock on the directory meanwhile.
//!
//! Never removed are a file that is no socket, a socket that somebody listens on, and, at the end, a file that has taken the
//! place of ours.

use super::socket::{
    Kind, bind_unix, open, start_connect_unix, start_listening, unix_path_address,
};
use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often a path is tried again at which others make and remove files meanwhile.
const TRIES: u32 = 8;
/// How long the lock is waited for, and how often it is tried. Somebody who holds it for longer is no server that starts.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why nobody can listen at a path.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Somebody listens there.
    InUse,
    /// What is there is none of ours to remove.
    NoSocket,
    /// The directory is not there.
    NoDirectory(PathBuf),
    /// It cannot be found out whether somebody listens on the socket that is there.
    Unknown(io::Error),
    /// What the system says.
    System(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::InUse => f.write_str(
                "the path is already in use by a running server; stop it or choose another path",
            ),
            Refused::NoSocket => f.write_str(
                "what is there is no socket, so it is not replaced; choose another path",
            ),
            Refused::NoDirectory(directory) => {
                write!(f, "there is no directory {}", directory.display())
            }
            Refused::Unknown(error) => {
                write!(
                    f,
                    "there is a socket, and whether somebody listens on it is not told: {error}"
                )
            }
            Refused::System(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::System(error)
    }
}

/// The file of a socket. Dropped, it is removed if it is still the one that was made. To be dropped before the socket is
/// closed: as long as that is open, the kernel gives its inode to no other file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Absolute: the working directory may change.
    path: PathBuf,
    identity: Identity,
}

/// Which file it is, whatever it is called: device and inode.
type Identity = (u64, u64);

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        let identity = identity(&fs::symlink_metadata(path)?);
        Ok(SocketFile { path: std::path::absolute(path)?, identity })
    }

    /// Whether a path leads to this file.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| identity(&found) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        remove(&self.path, self.identity);
    }
}

/// Removes a file, unless it is another one by now.
fn remove(path: &Path, wanted: Identity) {
    if fs::symlink_metadata(path).is_ok_and(|found| identity(&found) == wanted) {
        // Somebody else may have removed it, or not let us: at the end nobody can be told.
        let _ = fs::remove_file(path);
    }
}

/// Binds to a path, replacing a socket that nobody listens on, and listens. Until then nobody can connect, so that the mode,
/// if one is given, holds for everybody.
///
/// # Errors
/// See [`Refused`]. Nothing is left there that was not there before.
pub(crate) fn listen_at(
    path: &Path,
    mode: Option<u32>,
    backlog: u32,
) -> Result<(UnixListener, SocketFile), Refused> {
    let address = unix_path_address(path)?;
    let socket = open(Kind::UnixStream)?;
    let lock = lock(directory(path));
    bind(&socket, path, &address)?;
    let file = SocketFile::at(path)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    start_listening(&socket, backlog)?;
    drop(lock);
    Ok((UnixListener::from(socket), file))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A lock that is held until the file is dropped. None: the directory cannot be read, or somebody holds it for long, and we go
/// on without.
fn lock(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    for _ in 0..LOCK_TRIES {
        if file.try_lock().is_ok() {
            return Some(file);
        }
        thread::sleep(LOCK_PAUSE);
    }
    None
}

fn bind(socket: &OwnedFd, path: &Path, address: &SocketAddr) -> Result<(), Refused> {
    for _ in 0..TRIES {
        match bind_unix(socket, address) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AddrInUse => remove_stale(path, address)?,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Err(Refused::NoDirectory(directory(path).to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refused::InUse)
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path, address: &SocketAddr) -> Result<(), Refused> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        return Err(Refused::NoSocket);
    }
    let probe = open(Kind::UnixStream)?;
    match start_connect_unix(&probe, address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            remove(path, identity(&found));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Its queue is full.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Refused::InUse),
        // It is not one of streams, and open.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Err(Refused::InUse),
        Err(error) => Err(Refused::Unknown(error)),
        Ok(()) => Err(Refused::InUse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn refused(path: &Path) -> Refused {
        listen_at(path, None, 1).expect_err("refused")
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().expect("made");
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).expect("bound"));
        let (listener, file) = listen_at(&path, None, 1).expect("replaced");
        assert!(file.is_at(&path));
        UnixStream::connect(&path).expect("it listens");
        drop((file, listener));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_in_use_or_no_socket_stays() {
        let directory = tempfile::tempdir().expect("made");
        let path = directory.path().join("s");
        let other = UnixListener::bind(&path).expect("bound");
        assert!(matches!(refused(&path), Refused::InUse));
        drop(other);
        fs::remove_file(&path).expect("removed");
        let other = UnixDatagram::bind(&path).expect("bound");
        assert!(matches!(refused(&path), Refused::InUse));
        drop(other);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "kept").expect("written");
        assert!(matches!(refused(&path), Refused::NoSocket));
        assert_eq!(fs::read(&path).expect("there"), b"kept");
        fs::remove_file(&path).expect("removed");
        let target = directory.path().join("target");
        drop(UnixListener::bind(&target).expect("bound"));
        std::os::unix::fs::symlink(&target, &path).expect("made");
        assert!(matches!(refused(&path), Refused::NoSocket));
        assert!(path.is_symlink() && target.exists());
        assert!(matches!(refused(&target.join("x")), Refused::NoDirectory(_)));
        assert!(matches!(refused(&directory.path().join("none/x")), Refused::NoDirectory(_)));
    }

    #[test]
    fn only_our_own_file_is_removed() {
        let directory = tempfile::tempdir().expect("made");
        let path = directory.path().join("s");
        let (listener, file) = listen_at(&path, Some(0o600), 1).expect("bound");
        let mode = fs::symlink_metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::rename(&path, directory.path().join("moved")).expect("moved");
        let other = UnixListener::bind(&path).expect("bound");
        drop((file, listener));
        UnixStream::connect(&path).expect("the other's is there");
        drop(other);
    }

    #[test]
    fn of_many_that_start_at_once_one_listens() {
        let directory = tempfile::tempdir().expect("made");
        let path = directory.path().join("s");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).expect("bound"));
            let listening: Vec<_> = thread::scope(|scope| {
                let start = || scope.spawn(|| listen_at(&path, None, 16).ok());
                let threads: Vec<_> = (0..8).map(|_| start()).collect();
                threads.into_iter().filter_map(|one| one.join().expect("no panic")).collect()
            });
            assert_eq!(listening.len(), 1);
            assert!(listening[0].1.is_at(&path));
        }
    }
}
