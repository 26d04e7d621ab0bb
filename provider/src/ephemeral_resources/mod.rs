//! Ephemeral resources, one a file, each in the same order: model, schema, open.

pub(crate) mod ssh_key_pair;
