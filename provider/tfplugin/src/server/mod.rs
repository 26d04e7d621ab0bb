//! The server: from `main` to the last answer.

mod actions;
mod apply;
mod call;
mod data_sources;
mod end;
mod ephemeral;
mod functions;
mod handshake;
mod identity;
mod judged;
mod listen;
mod lists;
mod log;
mod outcome;
mod registry;
mod resources;
mod rpc;
mod service;
pub(crate) mod tls;
mod wire;

#[cfg(feature = "testing")]
pub(crate) mod embedded;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::UnixListener;
use tonic::codegen::BoxStream;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::Provider;
use crate::protocol::MAX_MESSAGE;
use crate::protocol::plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use crate::protocol::plugin::{
    self,
    grpc_controller_server::{GrpcController, GrpcControllerServer},
};
use crate::protocol::proto::provider_server::ProviderServer;
use end::End;
use handshake::{Handshake, Mode};

/// A provider's whole `main`: makes the handshake with Terraform, serves until Terraform ends it, then runs `at_end`.
///
/// Terraform kills the process two seconds after it has told it to end, and calls may still be running then, when the
/// user has pressed Ctrl-C twice. They are told to stop and have 1.3 seconds to come to a safe point; `at_end` has the
/// rest, half a second at least.
///
/// Without Terraform it explains that and fails. With `--debug` it serves without being started by Terraform, and
/// prints how to attach.
pub fn serve<P: Provider>(provider: P, at_end: impl Future<Output = ()> + Send) -> ExitCode {
    log::install(P::NAME, P::QUIET_TARGETS);
    let debug = std::env::args().skip(1).any(|argument| argument == "--debug" || argument == "-debug");
    let mode = if debug { Mode::Debug } else { Mode::Terraform };
    let handshake = match Handshake::begin(mode) {
        Ok(handshake) => handshake,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let end = End::default();
    let outcome = runtime.block_on(async {
        let outcome = run(provider, handshake, &end).await;
        end.put_away(at_end).await;
        outcome
    });
    // Tasks that are still running must not keep Terraform waiting.
    runtime.shutdown_timeout(Duration::from_millis(10));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is told to end.
async fn run<P: Provider>(provider: P, handshake: Handshake, end: &End) -> std::io::Result<()> {
    let Handshake { socket, tls, mode, directory } = handshake;
    let listener = UnixListener::bind(&socket)?;
    handshake::announce(mode, &socket, tls.as_ref(), P::SOURCE)?;
    match mode {
        Mode::Terraform => {
            tokio::spawn(ignore_interrupts());
            tokio::spawn(end_with_parent(end.clone()));
        }
        Mode::Debug => {
            tokio::spawn(end_on_interrupt(end.clone()));
        }
    }
    let server = router(provider, mode, end)
        .serve_with_incoming(listen::connections(listener, tls.map(|tls| tls.acceptor)));
    tokio::select! {
        outcome = server => outcome.map_err(std::io::Error::other)?,
        () = end.shutdown.cancelled() => {}
    }
    drop(directory);
    Ok(())
}

/// All services on one connection.
fn router<P: Provider>(provider: P, mode: Mode, end: &End) -> Router {
    let provider = ProviderServer::new(rpc::Rpc::new(provider, end))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    tonic::transport::Server::builder()
        .add_service(provider)
        .add_service(GrpcControllerServer::new(Controller { mode, end: end.clone() }))
        .add_service(GrpcStdioServer::new(Stdio))
}

/// go-plugin's service that ends a plugin.
struct Controller {
    mode: Mode,
    end: End,
}

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _request: Request<plugin::Empty>) -> Result<Response<plugin::Empty>, Status> {
        if self.mode == Mode::Terraform {
            self.end.now();
        }
        Ok(Response::new(plugin::Empty {}))
    }
}

/// go-plugin's service that forwards a plugin's output. A provider has none.
struct Stdio;

#[tonic::async_trait]
impl GrpcStdio for Stdio {
    async fn stream_stdio(
        &self,
        _request: Request<plugin::Empty>,
    ) -> Result<Response<BoxStream<plugin::StdioData>>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }
}

/// A Ctrl-C in the terminal reaches this process, too, and must not end it: Terraform calls StopProvider, and ends the
/// provider when everything is saved.
async fn ignore_interrupts() {
    while tokio::signal::ctrl_c().await.is_ok() {}
}

async fn end_on_interrupt(end: End) {
    if tokio::signal::ctrl_c().await.is_ok() {
        end.now();
    }
}

/// Terraform may be killed without ending its providers. Then running calls are told to stop, and the server ends.
async fn end_with_parent(end: End) {
    let parent = std::os::unix::process::parent_id();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if std::os::unix::process::parent_id() != parent {
            tracing::warn!("Terraform is gone");
            end.stop.cancel();
            tokio::time::sleep(Duration::from_secs(2)).await;
            end.now();
            return;
        }
    }
}
