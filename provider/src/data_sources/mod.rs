//! One data source a file.

pub(crate) mod ami;
pub(crate) mod machine_status;
pub(crate) mod network;
