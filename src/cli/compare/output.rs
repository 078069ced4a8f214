//! Where the reports go: the files, whether they can be written, and writing them.

use super::Options;
use super::model::Report;
use super::report;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Where a run's reports go if nobody says so.
const DIRECTORY: &str = "compare-report";

/// The files of a report.
pub(super) struct Output {
    /// None: it is there already, and is not written again.
    json: Option<PathBuf>,
    markdown: PathBuf,
    html: PathBuf,
}

impl Output {
    /// In the directory that was asked for. What is drawn again from a file lies beside that otherwise, under its name, so that no
    /// other report is written over.
    ///
    /// # Errors
    /// The file that is drawn again would be written over by its own drawing.
    pub(super) fn of(options: &Options) -> Result<Output, String> {
        match (&options.out, &options.from) {
            (None, Some(file)) => Output::beside(file),
            (out, _) => Ok(Output::within(out.as_deref().unwrap_or(Path::new(DIRECTORY)))),
        }
    }

    fn within(directory: &Path) -> Output {
        let file = |name| directory.join(name);
        Output {
            json: Some(file("report.json")),
            markdown: file("report.md"),
            html: file("report.html"),
        }
    }

    fn beside(file: &Path) -> Result<Output, String> {
        let (markdown, html) = (file.with_extension("md"), file.with_extension("html"));
        if [&markdown, &html].contains(&&file.to_path_buf()) {
            return Err(format!("{} would be written over: say where with --out", file.display()));
        }
        Ok(Output { json: None, markdown, html })
    }

    /// The page to look at.
    pub(super) fn page(&self) -> &Path {
        &self.html
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        self.json.iter().chain([&self.markdown, &self.html]).map(PathBuf::as_path)
    }

    /// Makes the directory, and finds out whether every file can be written. Those that are there stay as they are.
    ///
    /// # Errors
    /// What cannot be written, and why.
    pub(super) fn prepare(&self) -> Result<(), String> {
        for file in self.files() {
            let failed = |error| format!("no report can be written to {}: {error}", file.display());
            if let Some(directory) = file.parent() {
                fs::create_dir_all(directory).map_err(failed)?;
            }
            try_writing(file).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes every file.
    ///
    /// # Errors
    /// What cannot be written, and why.
    pub(super) fn write(&self, report: &Report) -> Result<(), String> {
        let failed = |file: &Path, error: io::Error| format!("{}: {error}", file.display());
        if let Some(file) = &self.json {
            let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
            // Beside it first: a full disk must not cost the figures that are there.
            let new = file.with_extension("json.new");
            let written = fs::write(&new, text).and_then(|()| fs::rename(&new, file));
            written.map_err(|error| {
                let _ = fs::remove_file(&new);
                failed(file, error)
            })?;
        }
        let write =
            |file: &Path, text: String| fs::write(file, text).map_err(|it| failed(file, it));
        write(&self.markdown, report::markdown(report))?;
        write(&self.html, report::html(report))
    }
}

/// Opens a file for writing and changes nothing.
fn try_writing(file: &Path) -> io::Result<()> {
    match File::create_new(file) {
        Ok(_) => fs::remove_file(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().append(true).open(file).map(drop)
        }
        Err(error) => Err(error),
    }
}
