//! One data source a file.

pub(crate) mod network;
