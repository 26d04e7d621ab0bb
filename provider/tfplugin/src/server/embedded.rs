//! The server within the process of a test.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::handshake::{self, Mode};
use super::listen::{self, Connection};
use super::router;
use crate::Provider;
pub(crate) use handshake::{COOKIE, reattach};

/// Serves one connection that never leaves the process.
pub(crate) fn serve_here<P: Provider>(provider: P) -> DuplexStream {
    let (theirs, ours) = tokio::io::duplex(1 << 20);
    let router = router(provider, Mode::Debug, &End::default());
    let connection = futures::stream::iter([Ok::<_, std::io::Error>(Connection::Memory(ours))]);
    // It ends with the connection.
    tokio::spawn(router.serve_with_incoming(connection));
    theirs
}

/// Serves on a socket, for a Terraform that attaches.
pub(crate) fn serve_on_socket<P: Provider>(
    provider: P,
    shutdown: &CancellationToken,
) -> std::io::Result<(TempDir, PathBuf)> {
    let directory = handshake::directory()?;
    let socket = directory.path().join("plugin.sock");
    let listener = UnixListener::bind(&socket)?;
    let ended = shutdown.clone().cancelled_owned();
    let router = router(provider, Mode::Debug, &End::default());
    tokio::spawn(router.serve_with_incoming_shutdown(listen::connections(listener, None), ended));
    Ok((directory, socket))
}

/// A server with TLS, as Terraform meets it.
#[cfg(test)]
pub(crate) struct Secured {
    pub(crate) socket: PathBuf,
    pub(crate) certificate: Vec<u8>,
    _directory: TempDir,
}

/// Serves on a socket for the owner of one certificate.
#[cfg(test)]
pub(crate) fn serve_secured<P: Provider>(
    provider: P,
    client: &str,
) -> Result<Secured, Box<dyn std::error::Error>> {
    let directory = handshake::directory()?;
    let socket = directory.path().join("plugin.sock");
    let listener = UnixListener::bind(&socket)?;
    let tls = super::tls::prepare(client)?;
    let connections = listen::connections(listener, Some(tls.acceptor));
    tokio::spawn(router(provider, Mode::Debug, &End::default()).serve_with_incoming(connections));
    Ok(Secured { socket, certificate: tls.certificate, _directory: directory })
}
