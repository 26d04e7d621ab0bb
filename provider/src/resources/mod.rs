//! One resource a file (or folder), each in the same order: model, schema, validate, plan, read, create, update,
//! delete, import.

pub(crate) mod deployment;
pub(crate) mod ec2_key_pair;
pub(crate) mod machine;
pub(crate) mod s3_bucket;
#[cfg(test)]
pub(crate) mod states;
