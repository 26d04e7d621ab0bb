//! The protocol as it is generated from `proto/`: messages, services, and how large a message may be.

/// Terraform's plugin protocol, version 6.
#[allow(dead_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(crate) mod proto {
    tonic::include_proto!("tfplugin6");
}

/// The services of go-plugin, by which Terraform starts and ends a provider.
#[allow(dead_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(crate) mod plugin {
    tonic::include_proto!("plugin");
}

/// The largest message either side may send; a quarter of a gigabyte, as Terraform's own servers allow.
pub(crate) const MAX_MESSAGE: usize = 256 << 20;
