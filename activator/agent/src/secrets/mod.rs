//! The secrets of an activation: staged in memory, published before the new system takes over, and put back when that
//! system does not stay.
//!
//! A content is only ever in two kinds of files: in root's own in a ramfs, which is never swapped out, and in the file
//! that the configuration declares. What the agent writes to a disk about secrets is names, paths and owners of files,
//! and for files that are on a disk themselves also a digest.

mod accounts;
mod ending;
mod manifest;
mod memory;
mod model;
mod place;
mod publish;
mod sealed;
mod staging;
mod undo;
mod units;
mod users;

pub(crate) use model::SecretChange;
pub(crate) use sealed::put_back;
pub(crate) use staging::stage;
pub(crate) use undo::undo;
pub(crate) use users::FilesWithoutUser;
