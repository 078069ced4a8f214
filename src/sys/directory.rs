//! Regular files below a directory, and reading them without waiting for a disk.
//!
//! Names are resolved by the kernel, by `openat2`: that a name leads to nothing outside the directory is its promise, whatever
//! is renamed meanwhile, and no comparison of texts. Any thread may use it; it keeps a descriptor of the directory and no other
//! state. Nothing here waits for a disk unless it is told that it may.

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{self as calls, Errno, ReadWriteFlags};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Which symbolic links of a name are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Symlinks {
    /// None: what one leads to is not there.
    None,
    /// Those that lead to something below the directory, by relative names all the way.
    #[default]
    Inside,
    /// Every one, wherever it leads. Whoever may write to the directory may have anything served that the process may read.
    All,
}

/// A directory. See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

/// Two are the same if they were opened by the same name.
impl PartialEq for Directory {
    fn eq(&self, other: &Directory) -> bool {
        self.path == other.path
    }
}

impl Eq for Directory {}

/// What a name leads to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: OwnedFd,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// When it was changed last: nanoseconds since 1970.
    pub(crate) modified: i128,
    pub(crate) inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    /// A FIFO, a device, a socket.
    Other,
}

/// Why a name leads to nothing that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfound {
    /// It is not known without the disk.
    WouldBlock,
    /// There is nothing, or it is outside the directory, or behind a link that is not followed.
    NotThere,
    /// This process may not read it.
    Forbidden,
    /// The system is short of memory or descriptors.
    Shortage,
    /// Something else.
    Failed,
}

impl Unfound {
    fn of(error: Errno) -> Unfound {
        match error {
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NXIO
            | Errno::NODEV
            | Errno::ILSEQ => Unfound::NotThere,
            Errno::ACCESS | Errno::PERM => Unfound::Forbidden,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Unfound::Shortage,
            _ => Unfound::Failed,
        }
    }
}

/// Whether a call may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It says `WouldBlock` instead.
    Never,
    Allowed,
}

/// Times that a name is resolved anew because something on its way was renamed meanwhile.
const RENAMED_MAX: u32 = 32;

impl Directory {
    /// # Errors
    /// It cannot be opened, or is none, or the system cannot keep names inside it; with what is to be said of its name.
    pub(crate) fn open(path: &Path) -> Result<Directory, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty())
            .map_err(|error| format!("cannot be opened: {}", io::Error::from(error)))?;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&fd, ".", flags, Mode::empty(), inside) {
            Ok(_) => Ok(Directory { path: path.to_owned(), fd }),
            Err(error) => Err(format!(
                "cannot be served: openat2, by which the system keeps names inside a directory, says: {}. Linux has it \
                 from 5.6 on; a sandbox must allow it",
                io::Error::from(error)
            )),
        }
    }

    /// Opens for reading what a relative name leads to. It waits for no writer of a FIFO, and does nothing to a device but open it.
    ///
    /// # Errors
    /// See [`Unfound`].
    pub(crate) fn find(
        &self,
        name: &[u8],
        symlinks: Symlinks,
        wait: Wait,
    ) -> Result<Opened, Unfound> {
        let mut resolve = ResolveFlags::NO_MAGICLINKS;
        match symlinks {
            Symlinks::None => resolve |= ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Symlinks::Inside => resolve |= ResolveFlags::BENEATH,
            Symlinks::All => {}
        }
        if wait == Wait::Never {
            resolve |= ResolveFlags::CACHED;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut tries = 0;
        let file = loop {
            match fs::openat2(&self.fd, name, flags, Mode::empty(), resolve) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if wait == Wait::Allowed && tries < RENAMED_MAX => tries += 1,
                // INVAL is said by a kernel before 5.12, which does not know CACHED.
                Err(Errno::AGAIN | Errno::INVAL) if wait == Wait::Never => {
                    return Err(Unfound::WouldBlock);
                }
                opened => break opened.map_err(Unfound::of)?,
            }
        };
        let stat = fs::fstat(&file).map_err(Unfound::of)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::Regular,
            FileType::Directory => Kind::Directory,
            _ => Kind::Other,
        };
        let modified = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Ok(Opened { file, kind, size: stat.st_size as u64, modified, inode: stat.st_ino })
    }
}

/// Reads what is in memory already. Less than was asked for, if that is all.
///
/// # Errors
/// `WouldBlock`: nothing of it is, or the file system cannot say so.
pub(crate) fn read_now(file: &impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match calls::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            read => return Ok(read?),
        }
    }
}

/// Reads, and waits for the disk.
pub(crate) fn read(file: &impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match calls::pread(file, &mut *buffer, offset) {
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}
