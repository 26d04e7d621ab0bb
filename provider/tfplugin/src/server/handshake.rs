//! go-plugin's handshake: what Terraform says in the environment, and the one line we answer on standard output.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tempfile::TempDir;

use super::tls::{self, Tls, TlsError};

/// The variable by which Terraform says that it starts the provider. It keeps users from starting one by mistake; it is
/// no protection.
pub(crate) const COOKIE: (&str, &str) =
    ("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2");

/// What the server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One run of Terraform, which started the process and ends it.
    Terraform,
    /// Any run of Terraform that attaches, until the user presses Ctrl-C.
    Debug,
}

/// What is agreed on before the first connection.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) mode: Mode,
    pub(super) socket: PathBuf,
    pub(super) tls: Option<Tls>,
    /// Holds the socket; dropping this removes both.
    pub(super) directory: TempDir,
}

/// Why the provider cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error(
        "This is a Terraform provider: Terraform starts it, it is of no use by hand.\n\
         Put it into a plugin directory or a mirror and run `terraform init`, or try --help."
    )]
    NotTerraform,
    #[error("cannot make a directory for the socket: {0}")]
    Directory(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Handshake {
    pub(super) fn begin(mode: Mode) -> Result<Self, HandshakeError> {
        let (cookie, value) = COOKIE;
        if mode == Mode::Terraform && std::env::var(cookie).ok().as_deref() != Some(value) {
            return Err(HandshakeError::NotTerraform);
        }
        let client =
            std::env::var("PLUGIN_CLIENT_CERT").ok().filter(|pem| !pem.is_empty() && mode == Mode::Terraform);
        let tls = client.map(|pem| tls::prepare(&pem)).transpose()?;
        let directory = directory()?;
        Ok(Self { mode, socket: directory.path().join("plugin.sock"), tls, directory })
    }
}

/// A private directory whose path is short enough for a socket.
pub(super) fn directory() -> std::io::Result<TempDir> {
    const LONGEST: usize = 100;
    let mut builder = tempfile::Builder::new();
    builder.prefix("tfplugin-").permissions(std::fs::Permissions::from_mode(0o700));
    if let Some(asked) = std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").filter(|asked| !asked.is_empty()) {
        return builder.tempdir_in(asked);
    }
    let usual = builder.tempdir()?;
    if usual.path().join("plugin.sock").as_os_str().len() <= LONGEST {
        Ok(usual)
    } else {
        builder.tempdir_in("/tmp")
    }
}

/// Tells Terraform, or the user, where to connect. The socket must be listening already.
pub(super) fn announce(mode: Mode, socket: &Path, tls: Option<&Tls>, source: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match mode {
        Mode::Terraform => writeln!(stdout, "{}", line(socket, tls))?,
        Mode::Debug => writeln!(
            stdout,
            "Serving until interrupted. In another terminal:\n\n  export TF_REATTACH_PROVIDERS='{}'",
            reattach(socket, source)
        )?,
    }
    stdout.flush()
}

/// What `TF_REATTACH_PROVIDERS` has to be for Terraform and OpenTofu to find us here.
pub(crate) fn reattach(socket: &Path, source: &str) -> String {
    let attach = serde_json::json!({ "Protocol": "grpc", "ProtocolVersion": 6, "Pid": std::process::id(), "Test": true,
        "Addr": { "Network": "unix", "String": socket } });
    // A source without a host is in the one registry for Terraform, and in the other for OpenTofu.
    let addresses = match source.split('/').count() {
        2 => vec![format!("registry.terraform.io/{source}"), format!("registry.opentofu.org/{source}")],
        _ => vec![source.to_owned()],
    };
    let providers: BTreeMap<String, _> =
        addresses.into_iter().map(|address| (address, attach.clone())).collect();
    serde_json::json!(providers).to_string()
}

/// `CORE|APP|NETWORK|ADDRESS|PROTOCOL|CERTIFICATE`, and whether we multiplex where the client asks.
fn line(socket: &Path, tls: Option<&Tls>) -> String {
    let certificate = tls.map(|tls| STANDARD_NO_PAD.encode(&tls.certificate)).unwrap_or_default();
    let multiplex =
        if std::env::var_os("PLUGIN_MULTIPLEX_GRPC").is_some_and(|v| !v.is_empty()) { "|false" } else { "" };
    format!("1|6|unix|{}|grpc|{certificate}{multiplex}", socket.display())
}
