//! One data source a file.

pub(crate) mod machine_status;
pub(crate) mod network;
