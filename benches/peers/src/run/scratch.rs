//! The run's temporary folder: load scripts and profiler output, gone at the end.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// A folder that is removed when this is dropped.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes the folder; fails where one of that name exists already.
    pub(super) fn new() -> io::Result<Scratch> {
        let path = env::temp_dir().join(format!("peers-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch { path })
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What removes it when the process ends without dropping.
    pub(super) fn remover(&self) -> impl FnOnce() + Send + 'static {
        let path = self.path.clone();
        move || remove(&path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    // Nothing depends on it, and there is nobody left to tell.
    let _ = fs::remove_dir_all(path);
}
