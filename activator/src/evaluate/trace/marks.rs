//! What the evaluator and the tracer tell each other.

/// A mark, which is the name of a file that is not there: Nix looks for it, and the tracer sees the question. This
/// one says that a node is done, the hash of whose name follows.
pub(super) const DONE: &str = "done-";
/// A flake is about to be watched.
pub(super) const BEGIN: &str = "begin";
/// Somebody asked which tree a flake is.
pub(super) const SELF: &str = "self";

/// The hidden argument that makes a program its own tracer.
pub(super) const WATCH: &str = "--watch-evaluation";
