//! The files with certificates and keys: PEM (RFC 7468), read whole, with errors that say which file, what is wrong with it and
//! what may help.
//!
//! Files are read when TLS is set up and when it is told to reload, by the thread that asks, which waits for the disk. A key that
//! was read is wiped from memory when nobody holds it any more; the text of its file is not.

use crate::error::{Error, ErrorKind};
use crate::limits::PEM_FILE_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE: &str = "CERTIFICATE";
/// PKCS#8, PKCS#1 and SEC1.
const PRIVATE_KEYS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
const ENCRYPTED_KEY: &str = "ENCRYPTED PRIVATE KEY";
/// How a key of the older form says that it is encrypted (RFC 1421).
const ENCRYPTED_HEADER: &str = "Proc-Type: 4,ENCRYPTED";

/// A mistake in the files or in what they are used for.
pub(super) fn wrong(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, text)
}

/// All certificates of a file, in its order; `what` is it for a reader of errors. There is at least one.
pub(super) fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path, what)?;
    // First: what is something else altogether may not even be PEM.
    if !sections(&text).any(|label| label == CERTIFICATE) {
        return Err(wrong(format!("{what} {}: {}", path.display(), why_no_certificate(&text))));
    }
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>();
    certificates.map_err(|error| damaged(path, what, error))
}

/// The one private key of a file, which may hold certificates besides.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    const WHAT: &str = "the private key";
    let text = read(path, WHAT)?;
    let shown = path.display();
    if sections(&text).any(|label| label == ENCRYPTED_KEY) || has_line(&text, ENCRYPTED_HEADER) {
        return Err(wrong(format!(
            "{WHAT} {shown} is encrypted, and nobody is asked for its passphrase: store it decrypted (`openssl pkey -in \
             {shown} -out FILE`), readable by the server's user only"
        )));
    }
    match sections(&text).filter(|label| PRIVATE_KEYS.contains(label)).count() {
        0 => Err(wrong(format!("{WHAT} {shown}: {}", why_no_key(&text)))),
        1 => PrivateKeyDer::from_pem_slice(&text).map_err(|error| damaged(path, WHAT, error)),
        count => Err(wrong(format!(
            "{WHAT} {shown}: the file holds {count} private keys; leave only the one that belongs to the certificate"
        ))),
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        // Opening a FIFO would wait for a writer.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "a directory" } else { "no regular file" };
            return Err(io::Error::other(format!("it is {what}")));
        }
        File::open(path)?.take(PEM_FILE_BYTES + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let shown = path.display();
    let text = read().map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "; check the path",
            io::ErrorKind::PermissionDenied => "; the server's user must be allowed to read it",
            _ => "",
        };
        wrong(format!("cannot read {what} {shown}: {error}{help}")).because(error)
    })?;
    if text.len() as u64 > PEM_FILE_BYTES {
        let most = PEM_FILE_BYTES / (1024 * 1024);
        return Err(wrong(format!(
            "{what} {shown} is larger than {most} MiB: it must be another file"
        )));
    }
    Ok(text)
}

fn damaged(path: &Path, what: &str, error: PemError) -> Error {
    let found = match &error {
        PemError::MissingSectionEnd { end_marker } => format!(
            "the line `{}` is missing; is the file cut off?",
            String::from_utf8_lossy(end_marker).trim_end()
        ),
        PemError::IllegalSectionStart { line } => {
            format!("`{}` begins no section", String::from_utf8_lossy(line).trim_end())
        }
        other => format!("{other}; is the file damaged?"),
    };
    wrong(format!("{what} {} is no valid PEM: {found}", path.display())).because(error)
}

fn why_no_certificate(text: &[u8]) -> String {
    let other = sections(text).next().map(|label| match label {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
            "it holds a request for a certificate; give the certificate that was issued for it".to_owned()
        }
        "TRUSTED CERTIFICATE" => {
            "it holds a certificate in OpenSSL's own form; convert it (`openssl x509 -in FILE -out FILE`)".to_owned()
        }
        label if label.ends_with("PRIVATE KEY") => {
            "it holds a private key and no certificate; are the two files swapped?".to_owned()
        }
        label => format!("it holds a section `{label}` and no certificate"),
    });
    other.unwrap_or_else(|| why_no_section(text, CERTIFICATE, "openssl x509 -inform der"))
}

fn why_no_key(text: &[u8]) -> String {
    let other =
        sections(text).find(|label| !label.ends_with("PARAMETERS")).map(|label| match label {
            CERTIFICATE => {
                "it holds a certificate and no private key; are the two files swapped?".to_owned()
            }
            "PUBLIC KEY" => "it holds a public key; the private one is needed".to_owned(),
            "OPENSSH PRIVATE KEY" => {
                "it holds a key in OpenSSH's own form; make one with `openssl genpkey`".to_owned()
            }
            label => format!("it holds a section `{label}` and no private key that is understood"),
        });
    other.unwrap_or_else(|| why_no_section(text, "PRIVATE KEY", "openssl pkey -inform der"))
}

fn why_no_section(text: &[u8], label: &str, command: &str) -> String {
    if text.is_empty() {
        return "the file is empty".to_owned();
    }
    // DER, or PKCS#12.
    if std::str::from_utf8(text).is_err() {
        return format!(
            "it is binary; convert it to PEM (`{command} -in FILE -out FILE`, or `openssl pkcs12` if it is a .p12 or .pfx)"
        );
    }
    format!("it holds no section that begins with `-----BEGIN {label}-----`")
}

/// The labels of a file's sections.
fn sections(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?.trim();
        line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")
    })
}

fn has_line(text: &[u8], wanted: &str) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line.trim_ascii() == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a file with this text, as a chain and as a key.
    fn said(text: &[u8]) -> (String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.pem");
        std::fs::write(&path, text).unwrap();
        let chain = certificates(&path, "the certificate chain").unwrap_err().to_string();
        let key = private_key(&path).unwrap_err().to_string();
        for text in [&chain, &key] {
            assert!(text.contains(path.to_str().unwrap()), "it names no file: {text}");
        }
        (chain, key)
    }

    #[track_caller]
    fn says(text: &[u8], of_the_chain: &str, of_the_key: &str) {
        let (chain, key) = said(text);
        assert!(chain.contains(of_the_chain), "{chain}");
        assert!(key.contains(of_the_key), "{key}");
    }

    fn key() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_what_it_is() {
        let section =
            |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let of = |label: &str| section(label).into_bytes();
        says(b"", "the file is empty", "the file is empty");
        says(b"hello", "`-----BEGIN CERTIFICATE-----`", "`-----BEGIN PRIVATE KEY-----`");
        says(&[0x30, 0x82, 1, 0, 0xff], "openssl x509 -inform der", "openssl pkey -inform der");
        says(&of("CERTIFICATE REQUEST"), "issued for it", "no private key that is understood");
        says(&of("TRUSTED CERTIFICATE"), "OpenSSL's own form", "no private key");
        says(&of("PUBLIC KEY"), "`PUBLIC KEY` and no certificate", "the private one is needed");
        says(&of("OPENSSH PRIVATE KEY"), "swapped", "OpenSSH's own form");
        says(&of("ENCRYPTED PRIVATE KEY"), "swapped", "openssl pkey -in");
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                   -----END RSA PRIVATE KEY-----\n";
        says(old.as_bytes(), "swapped", "is encrypted");
        says(&of("EC PARAMETERS"), "no certificate", "`-----BEGIN PRIVATE KEY-----`");
    }

    #[test]
    fn swapped_files_are_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.pem");
        std::fs::write(&path, key()).unwrap();
        let error = certificates(&path, "the certificate chain").unwrap_err();
        assert!(error.to_string().contains("swapped"), "{error}");
        assert!(error.is_config());
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let error = private_key(&path).unwrap_err();
        assert!(error.to_string().contains("swapped"), "{error}");
    }

    #[test]
    fn a_key_among_others_is_refused_and_one_beside_certificates_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.pem");
        std::fs::write(&path, [key(), key()].concat()).unwrap();
        let error = private_key(&path).unwrap_err();
        assert!(error.to_string().contains("2 private keys"), "{error}");
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, format!("{certificate}{}", key())).unwrap();
        private_key(&path).unwrap();
        assert_eq!(certificates(&path, "the certificate chain").unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_is_cut_off_is_told_so() {
        let whole = key();
        let (chain, key) = said(&whole.as_bytes()[..whole.len() / 2]);
        assert!(key.contains("is missing; is the file cut off?"), "{key}");
        assert!(chain.contains("swapped"), "{chain}");
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let missing = Path::new("/nowhere/at-all.pem");
        let error = private_key(missing).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at-all.pem: No such file"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        let directory = certificates(Path::new("/"), "the certificate chain").unwrap_err();
        assert!(directory.to_string().contains("directory"), "{directory}");
    }
}
